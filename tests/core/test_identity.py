"""Who a process is: known to its machines after they were made."""

from __future__ import annotations

from tests.core.benches import identity
from zray.core.client.client import Client
from zray.core.identity import NOBODY, Identity
from zray.ids import IdSource
from zray.protocol import messages as m


def test_machines_speak_in_the_name_of_the_process_that_they_find_themselves_in() -> None:
    me = Identity(NOBODY, NOBODY, IdSource(bytes(8)))
    client = Client(me, remote=False)
    me.become(identity("w1"), 4711, b"in-child")
    oid = client.references.put(b"x", [])
    client.references.publish([oid])
    client.flush()
    (put,) = [message for message in client.take_outbox() if isinstance(message, m.Put)]
    assert (put.holder, put.outcome.object_id) == (identity("w1"), oid)
    assert oid[:8] == b"in-child"
