"""The cluster's key: what derives from it, and which key files are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zmq

from zray.errors import KeyFileError
from zray.runtime.keys import ClusterKey, fingerprint, write_secret_file

ROOT = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "cluster.key"


def test_one_key_always_derives_the_same() -> None:
    one, same, other = ClusterKey(ROOT), ClusterKey(ROOT), ClusterKey.create()
    assert (one.server, one.client(), one.cluster_id) == (
        same.server,
        same.client(),
        same.cluster_id,
    )
    assert one.server != other.server and one.cluster_id != other.cluster_id


def test_the_derivation_never_changes() -> None:
    # A cluster's key outlives upgrades: with other values every client would be refused.
    key = ClusterKey(ROOT)
    assert key.cluster_id.hex() == "86422e3ef7106f04e3714c24a3e1eb17"
    assert key.server.public == b"^JVOVi5=tZwrHzLR*SKXjh+UL!Wcqn[Y9Ige4s>="
    assert key.client().public == b"Z?ryckX@qamnkrfKj(rNliNA^qq>jndY*UZ(PC!/"


def test_roles_and_generations_have_keys_of_their_own() -> None:
    key = ClusterKey(ROOT)
    pairs = [key.server, key.client(), key.client("observe"), key.client(generation=1)]
    assert len({pair.secret for pair in pairs}) == len({pair.public for pair in pairs}) == 4
    assert all(pair.public == zmq.curve_public(pair.secret) for pair in pairs)


def test_nothing_shows_a_secret() -> None:
    key = ClusterKey(ROOT)
    shown = f"{key!r} {key} {key.client()!r} {key.client()} {fingerprint(key.client().public)}"
    assert key.client().secret.decode() not in shown
    assert ROOT.hex() not in shown and repr(ROOT) not in shown


def test_the_first_start_makes_a_private_file_and_the_next_reads_it(path: Path) -> None:
    old_umask = os.umask(0)
    try:
        first = ClusterKey.load_or_create(path)
    finally:
        os.umask(old_umask)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert ClusterKey.load_or_create(path).server == ClusterKey.load(path).server == first.server
    assert os.listdir(path.parent) == [path.name]


def test_heads_that_start_at_once_agree_on_one_key(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(ClusterKey.load_or_create, [path] * 8))
    assert len({key.cluster_id for key in keys}) == 1
    assert os.listdir(path.parent) == [path.name]


def to_readable(path: Path) -> None:
    path.chmod(0o640)


def to_writable(path: Path) -> None:
    path.chmod(0o602)


def to_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def to_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def to_empty(path: Path) -> None:
    write_secret_file(path, b"")


def to_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def to_noise(path: Path) -> None:
    write_secret_file(path, bytes(range(256)))


def to_huge(path: Path) -> None:
    os.truncate(path, 1 << 30)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (to_readable, "chmod 600 "),
        (to_writable, "chmod 600 "),
        (to_link, "symbolic link"),
        (to_dangling_link, "symbolic link"),
        (to_folder, "plain file"),
        (to_fifo, "plain file"),
        (to_empty, "not a cluster key"),
        (to_short, "not a cluster key"),
        (to_noise, "not a cluster key"),
        (to_huge, "longer than any key file"),
    ],
)
def test_a_spoiled_key_file_is_refused(
    path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    ClusterKey.load_or_create(path)
    spoil(path)
    with pytest.raises(KeyFileError, match=words) as raised:
        ClusterKey.load_or_create(path)
    assert str(path) in str(raised.value)


def test_the_chmod_in_the_message_can_be_pasted(tmp_path: Path) -> None:
    path = tmp_path / "my data" / "cluster.key"
    ClusterKey.load_or_create(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError) as raised:
        ClusterKey.load(path)
    command = str(raised.value).rpartition("run: ")[2]
    assert os.system(command) == 0
    ClusterKey.load(path)


def test_a_key_of_another_user_is_refused(path: Path) -> None:
    owner = 0
    if os.geteuid() == owner:
        ClusterKey.load_or_create(path)
        owner = 12345
        os.chown(path, owner, owner)
    else:  # only root can give a file away, but root's own are everywhere
        path = Path("/etc/passwd")
    with pytest.raises(KeyFileError, match=f"belongs to user id {owner}"):
        ClusterKey.load(path)


def test_no_key_is_put_where_others_could_replace_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(KeyFileError, match="chmod 700 "):
        ClusterKey.load_or_create(tmp_path / "cluster.key")
    assert not os.listdir(tmp_path)


def test_a_missing_key_is_named(path: Path) -> None:
    with pytest.raises(KeyFileError, match="No such file"):
        ClusterKey.load(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KeyFileError, match="cannot make the directory"):
        ClusterKey.load_or_create(tmp_path / "file" / "cluster.key")
