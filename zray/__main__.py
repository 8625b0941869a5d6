"""``python -m zray``: the ``zray`` command. Holds no logic of its own."""

from zray.cli.main import main

if __name__ == "__main__":
    main()
