"""Which nodes of other machines a submitter reaches: only those can have workers leased to it.

It is told the nodes' own ports as they could be of use, and says to which of them it has a
connection. So nobody waits for a port behind a wall: until then, tasks go by way of the head.
"""

from __future__ import annotations

from zray import limits
from zray.core.head.members import Members, NodeMember
from zray.core.head.processes import Processes
from zray.core.head.recovery import Recovery
from zray.core.machine import NEVER, Outbox
from zray.errors import NodeDiedError
from zray.ids import split_tasks
from zray.protocol import messages as m


class LeaseReach:
    """By submitter."""

    def __init__(
        self,
        outbox: Outbox[bytes],
        members: Members,
        processes: Processes,
        recovery: Recovery,
    ) -> None:
        self._outbox = outbox
        self._members = members
        self._processes = processes
        self._recovery = recovery
        self._told: dict[bytes, dict[bytes, str]] = {}  # ports of nodes
        self._reached: dict[bytes, dict[bytes, None]] = {}
        self._barred: dict[tuple[bytes, bytes], float] = {}  # submitter and node, until
        self._due: dict[bytes, None] = {}  # who is to be told

    def any(self, submitter: bytes) -> bool:
        """Whether it reaches some."""
        return bool(self._reached.get(submitter))

    def reaches(self, submitter: bytes, node_id: bytes) -> bool:
        """Whether a worker of that node may be leased to it."""
        return node_id in self._reached.get(submitter, ()) and (
            not self._barred or (submitter, node_id) not in self._barred
        )

    def nodes(self, submitter: bytes) -> list[NodeMember]:
        """All those nodes that are there."""
        ids = self._reached.get(submitter, ())
        found = [self._members.nodes.get(node_id) for node_id in ids]
        return [
            node for node in found if node is not None and self.reaches(submitter, node.process_id)
        ]

    def want(self, submitter: bytes, node: NodeMember) -> None:
        """It could make use of that node."""
        told = self._told.setdefault(submitter, {})
        new = told.get(node.process_id) != node.info.liveness
        if new and len(told) >= limits.LEASE_NODES_MAX:
            self._forget_lost(told)
        if node.info.liveness and new and len(told) < limits.LEASE_NODES_MAX:
            told[node.process_id] = node.info.liveness
            self._due[submitter] = None

    def bar(self, submitter: bytes, node_id: bytes, until: float) -> None:
        """It has a connection, and could not reach a worker there all the same."""
        self._barred[submitter, node_id] = until

    def on_reaches(self, message: m.Reaches) -> list[bytes]:
        """It says to which nodes it has connections now; those to which it has none any more."""
        before = self._reached.pop(message.submitter, {})
        now = self._reached[message.submitter] = dict.fromkeys(split_tasks(message.node_ids))
        return [node_id for node_id in before if node_id not in now]

    def session_begins(self, submitter: bytes) -> None:
        """It may not have heard what it was told."""
        if self._told.pop(submitter, None) is not None:
            self._due.pop(submitter, None)

    def forget(self, submitter: bytes) -> None:
        """It has ended."""
        self._told.pop(submitter, None)
        self._reached.pop(submitter, None)
        self._due.pop(submitter, None)
        for key in [key for key in self._barred if key[0] == submitter]:
            del self._barred[key]

    def look(self, now: float) -> float:
        """Once a turn, before it is asked about; when there is something to do by itself."""
        for key in [key for key, until in self._barred.items() if now >= until]:
            del self._barred[key]
        return min(self._barred.values(), default=NEVER)

    def tell(self) -> None:
        """Once a turn: the ports of all nodes that could be of use and are there."""
        for submitter in self._due:
            told = self._told[submitter]
            self._forget_lost(told)
            self._outbox.send(submitter, m.Reach(0, submitter, [*told.items()]))
        self._due.clear()

    def _forget_lost(self, told: dict[bytes, str]) -> None:
        for node_id in [one for one in told if one not in self._members.nodes]:
            del told[node_id]

    # ---- what passes by --------------------------------------------------------------------

    def on_relay(self, source: bytes, message: m.Relay | m.RelayRefused) -> None:
        """What they say to each other where the node's own port is out of reach."""
        target = message.target
        if message.source != source:
            return
        if target in self._members.nodes or self._processes.lives(target):
            self._outbox.send(target, message)
        elif source not in self._members.nodes and not self._recovery.active:
            ids = (target, source, message.lease_id)
            text = "the node is lost"
            self._outbox.send(source, m.RelayRefused(0, *ids, NodeDiedError.code, text))
