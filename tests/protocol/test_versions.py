"""Versions of the protocol: who works with whom, and what one of the minor before is not told."""

from __future__ import annotations

import msgspec
import pytest

from zray._version import __version__
from zray.errors import ProtocolError, VersionMismatchError
from zray.protocol import codec, versions
from zray.protocol import messages as m

MINE = m.PROTOCOL_MINOR


def test_each_message_above_those_of_minor_0_has_its_minor() -> None:
    """Whoever adds a verb raises the minor, or says here that the present one has it."""
    later = {kind for kind in m.ALL if kind.__struct_config__.tag >= versions.TAG_OF_MINOR[1]}
    assert later == {*versions.SINCE}
    assert set(versions.SINCE.values()) <= {*range(1, MINE + 1)}
    assert len(versions.TAG_OF_MINOR) == MINE + 1


@pytest.mark.parametrize(
    ("version", "minor", "together"),
    [
        (m.PROTOCOL_VERSION, MINE, True),
        (m.PROTOCOL_VERSION, MINE + 1, True),
        (m.PROTOCOL_VERSION, MINE - 1, True),
        (m.PROTOCOL_VERSION, MINE + 2, False),
        (m.PROTOCOL_VERSION + 1, MINE, False),
        (m.PROTOCOL_VERSION - 1, MINE, False),
        (0, 0, False),
    ],
)
def test_those_one_minor_apart_work_together(version: int, minor: int, together: bool) -> None:
    assert versions.work_together(version, minor) is together


def test_one_far_behind_works_only_where_it_has_no_pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "PROTOCOL_MINOR", 5)
    assert not versions.work_together(m.PROTOCOL_VERSION, 3)
    assert versions.work_together(m.PROTOCOL_VERSION, 3, pickles=False)
    assert not versions.work_together(m.PROTOCOL_VERSION, 7, pickles=False)


@pytest.mark.parametrize(("minor", "which"), [(MINE + 2, "this one"), (MINE - 2, "that one")])
def test_a_mismatch_names_both_versions_and_which_to_upgrade(minor: int, which: str) -> None:
    text = versions.mismatch("this one", "that one", 1, minor, "9.8.7")
    assert f"{__version__} (protocol 1.{MINE})" in text
    assert f"9.8.7 (protocol 1.{minor})" in text
    assert f"Upgrade {which}" in text


def test_a_welcome_is_taken_only_of_the_newest_head_and_a_version_that_fits() -> None:
    def welcome(minor: int) -> m.Welcome:
        return m.Welcome(0, m.PROTOCOL_VERSION, bytes(16), 1, 1.0, minor=minor, zray="9.8.7")

    assert versions.unfit(welcome(MINE), 5, 5) is None
    old = versions.unfit(welcome(MINE), 4, 5)
    assert old is not None and old.code == ProtocolError.code
    apart = versions.unfit(welcome(MINE + 2), 5, 5)
    assert apart is not None and apart.code == VersionMismatchError.code
    assert "9.8.7" in apart.text and __version__ in apart.text


def test_what_a_minor_has_added_is_left_out_for_those_before() -> None:
    said = [m.Pong(0, 1.0, "OK"), m.HeadsChanged(0, []), m.Ack(0, 3)]
    assert versions.known(said, 1) == said
    assert versions.known(said, 0) == [said[0], said[2]]


# ---- what one of a later version says ----------------------------------------------------------


def test_appended_fields_are_passed_over_also_in_records() -> None:
    hello = m.Hello(0, 1, m.ROLE_DRIVER, bytes(16), 1, b"", m.Versions("3.11", "9", "3"))
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(hello))
    fields[7].append(["of a record", {"any": "thing"}])
    payload = msgspec.msgpack.encode((4, [[*fields, "of the message", [1, [2]]]]))
    assert codec.decode(payload) == codec.Payload(4, [hello], [])


def test_an_unknown_verb_is_refused_by_its_number_and_nothing_else_is() -> None:
    ping = m.Ping(0, 1.0)
    said = [[999, 7, "new"], msgspec.msgpack.decode(msgspec.msgpack.encode(ping))]
    found = codec.decode(msgspec.msgpack.encode((4, said)))
    assert found.messages == [ping]
    assert found.refused == [(7, f"protocol {m.PROTOCOL_VERSION}.{MINE} has no verb 999")]


def test_an_unknown_value_of_a_field_is_refused_with_its_message_alone() -> None:
    good = m.TaskDone(bytes(16), 1, m.FINISHED, [])
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(m.Done(3, [good])))
    fields[2][0][2] = 9  # a status that there is not yet
    found = codec.decode(msgspec.msgpack.encode((4, [fields, [5, 0, 1.0]])))
    assert found.messages == [m.Ping(0, 1.0)]
    assert [bad.seq for bad in found.refused] == [3] and "<= 3" in found.refused[0].text
