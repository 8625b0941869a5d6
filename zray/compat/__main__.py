"""``python -m zray.compat script.py [args]`` or ``-m module [args]``: run a program of Ray's."""

from __future__ import annotations

from zray.compat.run import main

if __name__ == "__main__":
    main()
