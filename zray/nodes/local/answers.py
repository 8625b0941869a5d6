"""What a program in local mode hears when it asks: one node, its own keys, placement groups."""

from __future__ import annotations

import os
import time

from zray import limits
from zray.core.resources import HEAD_NODE
from zray.errors import ZrayError
from zray.nodes.local.groups import LocalGroups
from zray.nodes.options import NodeOptions, units
from zray.protocol import messages as m

NOT_THERE = "there is no cluster in local mode, so it cannot be asked for"


class LocalAnswers:
    """``node``: as ``init`` was given it; ``node_id``, ``host``: of what seems to be there."""

    def __init__(self, node: NodeOptions, node_id: bytes, host: str, groups: LocalGroups) -> None:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        store = (node.object_store_bytes or memory) * limits.RESOURCE_UNIT
        resources = [*units(node, os.cpu_count() or 1, 0, memory).items()]
        resources += [("object_store_memory", store), (HEAD_NODE, limits.RESOURCE_UNIT)]
        resources.append((f"node:{host}"[: limits.NAME_MAX], limits.RESOURCE_UNIT))
        labels = [*node.labels.items()]
        self._info = m.NodeInfo(node.name, host, os.getpid(), resources, labels, "")
        self._node_id = node_id
        self._groups = groups
        self._began = time.time()
        self._kept: dict[bytes, bytes] = {}

    def to(self, question: m.Message) -> m.Message:
        """The answer.

        Raises:
            ZrayError: only a cluster could answer that.
        """
        if isinstance(question, m.Query) and question.what == m.STATUS:
            return self._status()
        if isinstance(question, m.Kv):
            return self._kv(question)
        if isinstance(question, m.CreateGroup):
            return self._groups.create(question)
        if isinstance(question, m.AskGroups):
            return self._groups.find(question)
        if isinstance(question, m.RemoveGroup):
            return self._groups.remove(question)
        what = type(question).__name__
        raise ZrayError(f"{NOT_THERE} ({what}): call init() without local_mode for that")

    def _status(self) -> m.Status:
        node = m.NodeStatus(
            *(self._node_id, 1, "ALIVE", self._info, self._info.resources, 0, 0, 0, 0.0)
        )
        cluster_id, healthy = bytes(16), "ok"
        return m.Status(0, 0, cluster_id, self._began, healthy, [node], [], [], 0, [], [])

    def _kv(self, asked: m.Kv) -> m.KvReply:
        found, value = asked.key in self._kept, b""
        keys: list[bytes] = []
        if asked.op == "get":
            value = self._kept.get(asked.key, b"")
        elif asked.op == "keys":
            keys = sorted(key for key in self._kept if key.startswith(asked.key))
        elif asked.op == "add":
            self._kept.setdefault(asked.key, asked.value)
        elif asked.op == "put":
            self._kept[asked.key] = asked.value
        else:
            self._kept.pop(asked.key, None)
        return m.KvReply(0, 0, found, value, keys)
