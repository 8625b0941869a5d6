"""What a process says of itself."""

from __future__ import annotations

from importlib import metadata

import pytest

from zray.runtime import identity


@pytest.mark.parametrize("package", ["cloudpickle", "msgpack", "pyzmq"])
def test_versions_are_those_of_the_metadata(package: str) -> None:
    assert identity.installed(package) == metadata.version(package)


def test_what_is_not_installed_is_named() -> None:
    with pytest.raises(metadata.PackageNotFoundError, match="no-such-package"):
        identity.installed("no-such-package")
