"""A link to a head, and what of a newer process's words an older head does not get."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zray.core.known_heads import KnownHeads
from zray.protocol import messages as m
from zray.runtime import sockets
from zray.runtime.connection import ConnectionInfo
from zray.runtime.keys import ClusterKey
from zray.runtime.link import HeadLink


@pytest.fixture
def link() -> Iterator[HeadLink]:
    key = ClusterKey.create()
    info = ConnectionInfo(
        cluster_id=key.cluster_id.hex(),
        addresses=["127.0.0.1:9"],
        server_public=key.server.public,
        client_public=key.client().public,
        client_secret=key.client().secret,
        pid=1,
        started=0.0,
        name="default",
    )
    context = sockets.context()
    yield HeadLink(context, info, KnownHeads(info.addresses), lambda: (0, m.Ping(0, 0.0)))
    context.destroy(0)


def test_an_older_head_gets_what_it_knows_and_the_rest_is_given_back(link: HeadLink) -> None:
    link.welcomed(m.PROTOCOL_MINOR)
    assert link.send(1, [m.StepDown(1, "")]) == []
    link.welcomed(0)
    (unsent,) = link.send(1, [m.Ping(0, 1.0), m.StepDown(2, "")])
    assert unsent.message == m.StepDown(2, "")
    assert "protocol 1.0" in unsent.text and "upgrade the head" in unsent.text
