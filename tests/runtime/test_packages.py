"""Packages: what is packed, under which name, and how it is unpacked."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from zray import limits
from zray.runtime import packages


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(name: str, *paths: str) -> Path:
        top = tmp_path / name
        top.mkdir()
        for path in paths:
            file = top / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(path)
        return top

    return make


def names(package: packages.Package) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(package.data[:])) as archive:
        return archive.namelist()


def zipped(path: Path, *members: tuple[str, str, int]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, text)
    return path


# ---- packing ---------------------------------------------------------------------------------


def test_the_same_files_make_the_same_package_wherever_and_whenever(
    folder: Callable[..., Path],
) -> None:
    first, second = folder("one", "b.txt", "a/c.txt"), folder("two", "a/c.txt", "b.txt")
    os.utime(second / "b.txt", (1, 1))
    assert packages.pack(first) == packages.pack(second)
    (second / "b.txt").chmod(0o755)
    assert packages.pack(first).digest != packages.pack(second).digest


def test_patterns_are_git_s_and_the_deepest_file_of_them_counts(
    folder: Callable[..., Path],
) -> None:
    top = folder(
        "top",
        "a.log",
        "keep.log",
        "sub/a.log",
        "sub/b.txt",
        "build/x",
        "sub/build/y",
        ".git/config",
    )
    (top / ".gitignore").write_text("*.log\n!keep.log\n/build/\n# a comment\n")
    (top / "sub" / ".gitignore").write_text("!a.log\nb.txt\n")
    expected = [".gitignore", "keep.log", "sub/.gitignore", "sub/a.log", "sub/build/y"]
    assert names(packages.pack(top)) == expected
    assert names(packages.pack(top, ["sub/build", "*.gitignore"])) == ["keep.log", "sub/a.log"]


def test_a_folder_may_be_in_another_and_empty_ones_stay(folder: Callable[..., Path]) -> None:
    top = folder("pkg", "__init__.py")
    (top / "empty").mkdir()
    assert names(packages.pack(top, inside="pkg")) == ["pkg/__init__.py", "pkg/empty/"]


def test_links_are_followed_and_what_is_no_file_is_left_out(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    top, other = folder("top", "a.txt"), folder("other", "b.txt")
    (top / "linked").symlink_to(other)
    (top / "loop").symlink_to(top)
    (top / "nowhere").symlink_to(tmp_path / "nothing")
    os.mkfifo(top / "pipe")
    assert names(packages.pack(top)) == ["a.txt", "linked/b.txt"]


def test_zip_files_wheels_and_single_modules_are_packages(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    archive = zipped(tmp_path / "x.zip", ("a.txt", "a", 0))
    assert packages.pack(archive).data == archive.read_bytes()
    module = folder("top", "m.py") / "m.py"
    assert names(packages.pack(module)) == ["m.py"]


def test_what_cannot_be_a_package_is_said(tmp_path: Path, folder: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="is not there"):
        packages.pack(tmp_path / "nothing.zip")
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match="neither a folder nor a zip file"):
        packages.pack(tmp_path / "x.txt")
    odd = folder("odd")
    (odd / os.fsdecode(b"\xff.txt")).touch()
    with pytest.raises(ValueError, match="UTF-8"):
        packages.pack(odd)


def test_too_much_is_refused_before_it_is_read(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PACKAGE_BYTES_MAX", 10 << 20)
    top = folder("top", "small.txt")
    with open(top / "large.bin", "wb") as file:
        file.truncate(11 << 20)
    with pytest.raises(ValueError, match="more than the 10 MiB"):
        packages.pack(top)
    assert names(packages.pack(top, ["large.bin"])) == ["small.txt"]


def test_folders_without_end_are_refused(
    tmp_path: Path, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    top = folder("top", "0/a", "1/a", "2/a")
    monkeypatch.setattr(limits, "PACKAGE_FILES_MAX", 3)
    assert len(names(packages.pack(top))) == 3
    for number in range(2):  # the same is seen by way of more and more links
        for name in "xy":
            (top / str(number) / name).symlink_to(f"../{number + 1}")
    with pytest.raises(ValueError, match="more than the 3 files"):
        packages.pack(top)
    deep = tmp_path / "deep"
    (deep / "/".join("d" * (limits.PACKAGE_FOLDERS_DEEP_MAX + 1))).mkdir(parents=True)
    with pytest.raises(ValueError, match="folders deep"):
        packages.pack(deep)
    assert names(packages.pack(deep, ["d/d"])) == ["d/"]


def test_a_file_that_grows_while_it_is_packed_is_counted_as_it_is(
    tmp_path: Path, folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    top = folder("top", "log")
    (top / "log").write_bytes(bytes(4 << 20))
    monkeypatch.setattr(os, "fstat", lambda fd: (top / "a").stat())  # as it was before
    (top / "a").touch()
    monkeypatch.setattr(limits, "PACKAGE_BYTES_MAX", 3 << 20)
    with pytest.raises(ValueError, match="more than the 3 MiB"):
        packages.pack(top, ["a"])


def test_any_name_that_a_file_has_here_it_has_there(
    tmp_path: Path, folder: Callable[..., Path]
) -> None:
    odd = ["a\\b", "new\nline", "\x1b[31m", "\u202etxt", " ", "c:", "-rf"]
    package = tmp_path / "package"
    package.write_bytes(packages.pack(folder("top", *odd)).data)
    packages.unpack(package, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == sorted(odd)


# ---- unpacking -------------------------------------------------------------------------------


def test_what_was_packed_comes_out_with_what_may_be_run(
    folder: Callable[..., Path], tmp_path: Path
) -> None:
    top = folder("top", "run.sh", "a/b.txt")
    (top / "run.sh").chmod(0o755)
    package = tmp_path / "package"
    package.write_bytes(packages.pack(top).data)
    target = tmp_path / "out"
    assert packages.unpack(package, target) == len("run.sh") + len("a/b.txt")
    assert (target / "a" / "b.txt").read_text() == "a/b.txt"
    assert os.access(target / "run.sh", os.X_OK)
    assert not os.access(target / "a" / "b.txt", os.X_OK)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ([("top/a", "", 0), ("top/b/c", "", 0)], ["a", "b"]),
        ([("top/", "", 0), ("top/a", "", 0)], ["a"]),
        ([("top/a", "", 0), ("b", "", 0)], ["b", "top"]),
        ([("one/a", "", 0), ("two/b", "", 0)], ["one", "two"]),
    ],
)
def test_one_folder_that_all_is_in_is_left_out(
    tmp_path: Path, members: list[tuple[str, str, int]], expected: list[str]
) -> None:
    package = zipped(tmp_path / "x.zip", *members)
    packages.unpack(package, tmp_path / "out", strips_top=True)
    assert sorted(os.listdir(tmp_path / "out")) == expected


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../out-of-it", 0),
        ("a/../../out-of-it", 0),
        ("/tmp/out-of-it", 0),
        ("a\\..\\out-of-it", 0),
        ("link", stat.S_IFLNK | 0o777),
        ("device", stat.S_IFCHR | 0o777),
    ],
)
def test_nothing_comes_out_elsewhere(tmp_path: Path, name: str, mode: int) -> None:
    package = zipped(tmp_path / "x.zip", (name, "/etc/passwd", mode))
    with pytest.raises(ValueError, match=r"outside|link"):
        packages.unpack(package, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out", "x.zip"]
    assert os.listdir(tmp_path / "out") == []


def test_a_file_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        package = zipped(tmp_path / "x.zip", ("a", "1", 0), ("a", "2", 0))
    with pytest.raises(OSError, match="exists"):
        packages.unpack(package, tmp_path / "out")


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACKAGE_BYTES_MAX", 1 << 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(64 << 20))
    with pytest.raises(ValueError, match="unpacks to more than"):
        packages.unpack(tmp_path / "x.zip", tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size <= 4 << 20


@pytest.mark.parametrize("data", [b"", b"PK\3\4 and nothing more", b"x" * 1000])
def test_what_is_no_zip_file_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ValueError, match="no zip file"):
        packages.unpack(tmp_path / "x.zip", tmp_path / "out")


def test_what_is_broken_in_the_middle_is_said(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(range(256)) * 100)
    data = bytearray((tmp_path / "x.zip").read_bytes())
    for place in range(35, 60):
        data[place] = 0xFF
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(ValueError, match="no zip file"):
        packages.unpack(tmp_path / "x.zip", tmp_path / "out")


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACKAGE_FILES_MAX", 2)
    package = zipped(tmp_path / "x.zip", *((str(number), "", 0) for number in range(3)))
    with pytest.raises(ValueError, match="more than 2 files"):
        packages.unpack(package, tmp_path / "out")
