"""Folders and files that travel to nodes: packed into zip files, and unpacked from them safely.

A package is named by the digest of its bytes. The same files make the same bytes wherever they lie,
so that they are sent, and unpacked on each node, once. Only the standard library is imported before
something is packed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from zray import limits

DEFAULT_EXCLUDES = (".git", ".venv", "venv", "__pycache__")  # as in Ray
IGNORE_FILES = (".gitignore", ".rayignore")
_TIME = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can name
_COPY_BYTES = 1 << 20
# What zipfile raises of files that are none, are cut off, or have been changed.
_BROKEN = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error)


class Package(NamedTuple):
    """``digest``: of ``data``, in hexadecimal; ``data`` is a zip file, in memory or mapped."""

    digest: str
    data: bytes | mmap.mmap


def digest_of(data: Any) -> str:
    """The name of a package of these bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# ---- packing -------------------------------------------------------------------------------------


def pack(path: Path, excludes: Sequence[str] = (), *, inside: str = "") -> Package:
    """Pack a folder, a file of Python, a zip file or a wheel.

    What ``excludes`` and the ``.gitignore`` files of a folder match is left out, and what
    ``DEFAULT_EXCLUDES`` does; links are followed, as Ray does.

    Args:
        excludes: patterns as in ``.gitignore``, relative to the folder.
        inside: the folder that all files are in, in the package; empty: at its top.

    Raises:
        ValueError: there is nothing like that, or it has more than ``PACKAGE_BYTES_MAX``,
            ``PACKAGE_FILES_MAX`` or ``PACKAGE_FOLDERS_DEEP_MAX``.
        OSError: a file cannot be read.
    """
    if path.is_dir():
        return _pack_files(_found(path, excludes), path, inside)
    if path.suffix == ".py" and path.is_file():
        return _pack_files([(path.name, path)], path, inside)
    if path.suffix in (".zip", ".whl") and zipfile.is_zipfile(path):
        size = path.stat().st_size
        _check_size(size, path)
        with open(path, "rb") as file:
            return _of_file(file)
    if not path.exists():
        raise ValueError(f"{str(path)!r} is not there")
    raise ValueError(f"{str(path)!r} is neither a folder nor a zip file, a wheel or a .py file")


def _found(top: Path, excludes: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Files and empty folders, in order, by their names in the package."""
    from pathspec import GitIgnoreSpec  # rarely needed

    patterns = [*DEFAULT_EXCLUDES, *excludes]
    yield from _walk(top, "", [("", GitIgnoreSpec.from_lines(patterns))], {})


def _walk(
    folder: Path, name: str, specs: list[tuple[str, Any]], above: dict[tuple[int, int], None]
) -> Iterator[tuple[str, Path]]:
    from pathspec import GitIgnoreSpec

    found = folder.stat()
    identity = (found.st_dev, found.st_ino)
    if identity in above:
        return  # a link to a folder that this is in
    if len(above) > limits.PACKAGE_FOLDERS_DEEP_MAX:
        raise ValueError(
            f"{name[:60]!r}... is more than {limits.PACKAGE_FOLDERS_DEEP_MAX} folders deep, which "
            "no package may have; leave it out with excludes"
        )
    above = {**above, identity: None}
    for ignore in IGNORE_FILES:
        file = folder / ignore
        if file.is_file():
            lines = file.read_text("utf-8", "replace").splitlines()
            specs = [*specs, (name, GitIgnoreSpec.from_lines(lines))]
    is_empty = True
    for entry in sorted(os.scandir(folder), key=lambda one: one.name):
        inner = f"{name}{entry.name}"
        is_folder = entry.is_dir()
        if _is_ignored(f"{inner}/" if is_folder else inner, specs):
            continue
        if is_folder:
            is_empty = False
            yield from _walk(folder / entry.name, f"{inner}/", specs, above)
        elif entry.is_file():  # no socket, no pipe, no link to nothing
            is_empty = False
            yield inner, folder / entry.name
    if is_empty and name:
        yield name, folder


def _is_ignored(name: str, specs: list[tuple[str, Any]]) -> bool:
    """As git has it: the last pattern that matches counts, of the deepest file that has one."""
    for base, spec in reversed(specs):
        verdict = spec.check_file(name.removeprefix(base)).include
        if verdict is not None:
            return bool(verdict)
    return False


def _pack_files(files: Any, top: Path, inside: str) -> Package:
    total = count = 0
    prefix = f"{inside}/" if inside else ""
    with tempfile.TemporaryFile(prefix="zray-package-") as target:
        with zipfile.ZipFile(target, "w") as archive:  # as it is: that makes equal bytes anywhere
            for name, path in files:
                count += 1
                if count > limits.PACKAGE_FILES_MAX:  # links may lead to the same again and again
                    raise ValueError(
                        f"{str(top)!r} has more than the {limits.PACKAGE_FILES_MAX:,} files that a "
                        "package may have; leave some out with excludes"
                    )
                total += _add(archive, prefix + name, path, top)
                _check_size(total, top)
        target.seek(0)
        return _of_file(target)


def _add(archive: zipfile.ZipFile, name: str, path: Path, top: Path) -> int:
    """One file; its size."""
    try:
        info = zipfile.ZipInfo(name, _TIME)
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{name!r} cannot travel: its name is not text that UTF-8 can carry; rename it, or "
            "leave it out with excludes"
        ) from None
    if name.endswith("/"):
        info.external_attr = (stat.S_IFDIR | 0o755) << 16
        archive.writestr(info, b"")
        return 0
    with open(path, "rb") as file:
        found = os.fstat(file.fileno())
        mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
        info.external_attr = (stat.S_IFREG | mode) << 16
        info.file_size = found.st_size
        _check_size(found.st_size, top)
        size = 0
        with archive.open(info, "w") as member:
            while piece := file.read(_COPY_BYTES):
                size += len(piece)
                _check_size(size, top)  # it may grow meanwhile
                member.write(piece)
    return size


def _check_size(size: int, path: Path) -> None:
    if size > limits.PACKAGE_BYTES_MAX:
        raise ValueError(
            f"{str(path)!r} has more than the {limits.PACKAGE_BYTES_MAX >> 20} MiB that a package "
            "may have; leave large files out with excludes, or put them where all nodes see them"
        )


def _of_file(file: IO[bytes]) -> Package:
    """The package that a file is; it may be removed then."""
    size = os.fstat(file.fileno()).st_size
    if size <= _COPY_BYTES:
        data: bytes | mmap.mmap = file.read()
    else:
        data = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return Package(digest_of(data), data)


# ---- unpacking -----------------------------------------------------------------------------------


def unpack(package: Path, target: Path, *, strips_top: bool = False) -> int:
    """Write what a zip file has to a new folder; bytes of all files.

    Args:
        strips_top: if all is in one folder, that folder's place is ``target``'s.

    Raises:
        ValueError: it is no zip file, names a place outside of ``target``, or has too much in it.
        OSError: it cannot be written.
    """
    try:
        with zipfile.ZipFile(package) as archive:
            members = archive.infolist()
            if len(members) > limits.PACKAGE_FILES_MAX:
                raise ValueError(f"it has more than {limits.PACKAGE_FILES_MAX:,} files")
            top = _only_top(members) if strips_top else ""
            target.mkdir(parents=True)
            return _write_all(archive, members, target, top)
    except _BROKEN as error:
        raise ValueError(f"it is no zip file that can be read: {error}") from error


def _only_top(members: Sequence[zipfile.ZipInfo]) -> str:
    """The folder that all is in, with its slash; empty: there is none."""
    tops = {name.partition("/")[0] for name in (one.filename for one in members)}
    if len(tops) != 1 or any("/" not in one.filename for one in members):
        return ""
    return f"{tops.pop()}/"


def _write_all(
    archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], target: Path, top: str
) -> int:
    left = limits.PACKAGE_BYTES_MAX * limits.PACKAGE_EXPANSION_MAX
    total = 0
    for member in members:
        name = member.filename.removeprefix(top)
        if not name:
            continue
        mode = member.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{member.filename!r} in it is a link or a device, which is not taken")
        place = _place(target, name)
        if member.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as source, open(place, "xb") as file:
            while piece := source.read(_COPY_BYTES):  # what it says of its size may be wrong
                total += len(piece)
                if total > left:
                    raise ValueError(f"it unpacks to more than {left >> 20:,} MiB")
                file.write(piece)
        if mode & stat.S_IXUSR:
            place.chmod(0o755)
    return total


def _place(target: Path, name: str) -> Path:
    parts = name.split("/")
    if name.startswith("/") or "\0" in name or ".." in name.replace("\\", "/").split("/"):
        raise ValueError(f"it names a place outside of its folder: {name!r}")
    return target.joinpath(*parts)
