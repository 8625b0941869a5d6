"""Connection files: written whole and private, read strictly, found by address; and addresses."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from zray import limits
from zray.errors import KeyFileError
from zray.runtime import connection
from zray.runtime.connection import ConnectionInfo, find, home, parse_address
from zray.runtime.keys import ClusterKey

KEY = ClusterKey.create()


@pytest.fixture(autouse=True)
def no_chosen_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(connection.FILE_VARIABLE, raising=False)


def make(**changes: Any) -> ConnectionInfo:
    pair = KEY.client()
    fields: dict[str, Any] = {
        "cluster_id": KEY.cluster_id.hex(),
        "addresses": ["127.0.0.1:10001"],
        "server_public": KEY.server.public,
        "client_public": pair.public,
        "client_secret": pair.secret,
        "pid": os.getpid(),
        "started": time.time(),
    }
    return ConnectionInfo(**{**fields, **changes})


def store(name: str = "default", **changes: Any) -> ConnectionInfo:
    info = make(name=name, **changes)
    info.write(connection.connection_path(name))
    return info


# ---- the file ------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    info = make(addresses=["10.0.0.5:10001", "[fe80::1]:7000"], name="lab")
    path = tmp_path / "connection.json"
    info.write(path)
    info.write(path)
    assert ConnectionInfo.load(path) == info
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [path.name]


def test_the_secret_is_not_shown() -> None:
    info = make()
    assert info.client_secret.decode() not in f"{info!r} {info}"
    assert info.cluster_id in repr(info)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cluster_id", "lab"),
        ("addresses", []),
        ("addresses", "127.0.0.1:10001"),
        ("addresses", ["127.0.0.1:port"]),
        ("addresses", [10001]),
        ("server_public", None),
        ("server_public", "x" * 39),
        ("client_public", "~" * 40),
        ("client_public", "\u00e9" * 40),
        ("client_secret", "%" * 40),
        ("client_secret", 7),
        ("pid", True),
        ("pid", 0),
        ("pid", "1"),
        ("started", "today"),
        ("started", float("nan")),
        ("started", -1),
        ("name", "../../etc"),
        ("name", ""),
        ("host", ["a"]),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(
    tmp_path: Path, field: str, value: object
) -> None:
    path = tmp_path / "connection.json"
    make().write(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, field: value}))
    with pytest.raises(KeyFileError, match=f"field '{field}' must be ") as raised:
        ConnectionInfo.load(path)
    assert not isinstance(value, str) or len(value) < 39 or value not in str(raised.value)
    del content[field]
    path.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match=f"field '{field}' is missing"):
        ConnectionInfo.load(path)


def test_a_field_of_a_later_version_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    info = make()
    info.write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": 1}))
    assert ConnectionInfo.load(path) == info


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "connection.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="is not a connection file"):
        ConnectionInfo.load(path)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    make().write(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        ConnectionInfo.load(path)


# ---- where files are -----------------------------------------------------------------------


def test_the_layout_of_home(zray_home: Path) -> None:
    assert home() == zray_home
    path = connection.connection_path("lab")
    assert path == zray_home / "clusters" / "lab" / "connection.json"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "\u00e9", "n" * 129, "a\0b"])
def test_a_name_that_is_no_folder_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a cluster name"):
        connection.connection_path(name)


def test_home_is_below_the_user_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(connection.HOME_VARIABLE)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".zray"
    assert stat.S_IMODE(home().stat().st_mode) == 0o700


def test_without_a_home_it_is_in_tmp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(connection.HOME_VARIABLE)
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    monkeypatch.setattr(connection, "_TEMPORARY", str(tmp_path))
    assert home() == home() == tmp_path / f"zray-{os.geteuid()}"
    assert stat.S_IMODE(home().stat().st_mode) == 0o700


def test_what_another_user_may_have_put_in_tmp_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(connection.HOME_VARIABLE)
    monkeypatch.setenv("HOME", "/proc/nonexistent")
    monkeypatch.setattr(connection, "_TEMPORARY", str(tmp_path))
    directory = tmp_path / f"zray-{os.geteuid()}"
    directory.symlink_to(tmp_path)
    with pytest.raises(KeyFileError, match="symbolic link"):
        home()
    directory.unlink()
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(KeyFileError, match="writable by other users"):
        home()
    if os.geteuid() == 0:
        directory.chmod(0o700)
        os.chown(directory, 12345, 12345)
        with pytest.raises(KeyFileError, match="belongs to user id 12345"):
            home()


def test_a_chosen_home_that_cannot_be_used_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connection.HOME_VARIABLE, "/proc/nonexistent")
    with pytest.raises(KeyFileError, match="cannot make the directory"):
        home()


# ---- finding -------------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_runs() -> None:
    assert find() is None and find("127.0.0.1:10001") is None


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("127.0.0.1:10001", "localhost"),
        ("127.0.0.1:10001", "LOCALHOST.:10001"),
        ("0.0.0.0:10001", "zray://127.0.0.1:10001"),
        ("127.0.0.1:10001", "ray://[::1]:10001"),
        ("[::]:10001", "127.9.9.9:10001"),
        ("10.99.0.1:10001", "10.99.0.1"),
        ("[2001:db8::1]:10001", "[2001:DB8:0::1]:10001"),
        ("head.example:10001", "Head.Example:10001"),
    ],
)
def test_one_address_in_two_spellings_is_found(stored: str, asked: str) -> None:
    assert find(asked) is None
    info = store(addresses=["10.99.0.7:1", stored])
    assert find(asked) == info


def test_this_machine_s_own_names_and_addresses_are_loopback() -> None:
    info = store()
    assert find(f"{socket.gethostname()}:10001") == info
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family == socket.AF_INET:
                assert find(f"{entry.address}:10001") == info


@pytest.mark.parametrize("asked", ["127.0.0.1:10002", "10.99.0.1:10001", "other.example:10001"])
def test_another_address_is_not_found(asked: str) -> None:
    store()
    assert find(asked) is None


def test_without_an_address_default_goes_first_then_the_newest() -> None:
    now = time.time()
    old = store("old", started=now)
    assert find() == old
    new = store("new", started=now + 1)
    assert find() == new
    default = store("default", started=now - 0.5)
    assert find() == default
    assert find("127.0.0.1:10001") == new


def test_a_head_whose_process_is_gone_is_ignored() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process.stdin
    info = store(pid=process.pid)
    assert find() == info
    process.stdin.close()
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.001)
    assert find() is None
    process.wait()
    assert find() is None and find("127.0.0.1:10001") is None


def test_a_reused_pid_does_not_count_unless_the_port_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        started = psutil.Process().create_time() - 3600
        info = store(addresses=[f"127.0.0.1:{port}"], started=started)
        assert find() == info  # the clock was set since the head started
    assert find() is None


def test_a_head_on_another_machine_is_found_by_address_only() -> None:
    info = store(host="elsewhere", addresses=["127.0.0.1:10001", "10.99.0.1:10001"], pid=1 << 30)
    assert find() is None
    assert find("127.0.0.1:10001") is None
    assert find("10.99.0.1:10001") == info


def test_a_chosen_file_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = store()
    chosen = make(addresses=["10.99.0.1:10001"], name="chosen", pid=1 << 30)
    chosen.write(tmp_path / "mine.json")
    monkeypatch.setenv(connection.FILE_VARIABLE, str(tmp_path / "mine.json"))
    assert find() == find("10.99.0.1:10001") == chosen
    assert find("127.0.0.1:10001") == stored
    assert find("head.example:10001") == chosen  # the head may have more names than it knows
    (tmp_path / "mine.json").chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod"):
        find("127.0.0.1:10001")


def test_a_file_that_cannot_be_used_is_an_error_only_where_it_may_matter() -> None:
    lab = store("lab")
    store("spoiled", addresses=["10.99.0.1:10001"])
    connection.connection_path("spoiled").chmod(0o644)
    assert find() == find("127.0.0.1:10001") == lab
    with pytest.raises(KeyFileError, match="spoiled"):
        find("10.99.0.1:10001")


# ---- several heads -------------------------------------------------------------------------


def test_other_heads_are_in_the_file_and_older_files_have_none(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    info = make(heads=["10.0.0.6:10001", "[fe80::1]:7000"])
    info.write(path)
    assert ConnectionInfo.load(path) == info
    for nonsense in ("h2:1", [7], ["h2:port"]):
        path.write_text(json.dumps({**json.loads(path.read_text()), "heads": nonsense}))
        assert ConnectionInfo.load(path).heads == []


def test_a_head_is_found_by_the_file_of_another_of_its_cluster() -> None:
    info = store(heads=["10.99.0.2:10001"])
    assert find("10.99.0.2:10001") == info
    assert find("10.99.0.3:10001") is None
    assert info.reachable() == ["127.0.0.1:10001", "10.99.0.2:10001"]
    assert info.elsewhere(["localhost:10001", "127.0.0.1:10001"]) == ["10.99.0.2:10001"]


def test_another_machine_s_loopback_is_not_tried_here() -> None:
    info = make(host="elsewhere", addresses=["10.99.0.1:1", "127.0.0.1:1"], heads=["h2:1"])
    assert info.reachable() == ["10.99.0.1:1", "h2:1"]


def test_the_file_of_a_killed_head_counts_if_its_cluster_has_others() -> None:
    gone = {"pid": 1 << 30, "started": time.time()}
    store("alone", **gone)
    assert connection.followed() is None
    left = store("left", heads=["10.99.0.2:10001"], **gone)
    assert find() is None, "it does not run"
    assert connection.followed() == left
    assert find("10.99.0.2:10001") == left
    store("away", heads=["10.99.0.4:10001"], host="elsewhere", **gone)
    assert connection.followed() == left


def test_several_addresses_in_one_text() -> None:
    split = connection.split_addresses
    assert split("h1, zray://h2:7 ,h1:10001") == ["h1:10001", "h2:7"]
    with pytest.raises(ValueError, match="names no host"):
        split("h1:1,,h2:1")
    most = limits.HEADS_MAX * limits.HEAD_ADDRESSES_MAX
    with pytest.raises(ValueError, match=f"at most {most}"):
        split(",".join(f"h{number}:1" for number in range(most + 1)))


# ---- addresses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:7000", ("127.0.0.1", 7000)),
        ("head", ("head", limits.HEAD_PORT)),
        ("my_head-1.example.:65535", ("my_head-1.example.", 65535)),
        ("[::1]:7000", ("::1", 7000)),
        ("[::1]", ("::1", limits.HEAD_PORT)),
        ("zray://head:7000", ("head", 7000)),
        ("ZRAY://head:7000/", ("head", 7000)),
        ("ray://[fe80::1]:7000", ("fe80::1", 7000)),
        (" tcp://0.0.0.0:1 ", ("0.0.0.0", 1)),
    ],
)
def test_addresses_that_are_accepted(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no host"),
        (":10001", "names no host"),
        ("10001", "write 127.0.0.1:10001"),
        ("http://head:8265", "is a web address"),
        ("https://head", "is a web address"),
        ("redis://head:6379", "unknown scheme 'redis'"),
        ("head:8265", "the dashboard's"),
        ("head:", "number from 1 to 65535, not ''"),
        ("head:abc", "number from 1 to 65535, not 'abc'"),
        ("head:0", "number from 1 to 65535"),
        ("head:70000", "number from 1 to 65535"),
        ("head:-1", "number from 1 to 65535"),
        ("head:" + "9" * 5000, "number from 1 to 65535"),
        ("head:\u0661\u0662", "number from 1 to 65535"),
        ("head:7000/path", "number from 1 to 65535"),
        ("::1", "without brackets"),
        ("fe80::1:10001", "without brackets"),
        ("[::1", "unmatched bracket"),
        ("[::1]7000", "unmatched bracket"),
        ("[::g]:7000", "not an IP address"),
        ("300.1.1.1:7000", "not an IP address"),
        ("user@head:7000", "not a host name"),
        ("my head:7000", "not a host name"),
        ("h\u00e9ad:7000", "not a host name"),
        ("-head:7000", "not a host name"),
    ],
)
def test_addresses_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_address(text)
