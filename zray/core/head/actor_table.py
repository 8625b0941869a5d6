"""The GCS's actors that are not dead, and which are whose: by job, owner and node of before."""

from __future__ import annotations

from zray.core.head.actor_records import ActorRecord


class ActorTable(dict[bytes, ActorRecord]):
    """By actor id. Changed by ``add`` and ``remove`` alone."""

    def __init__(self) -> None:
        super().__init__()
        self._of_jobs: dict[bytes, dict[bytes, None]] = {}
        self._of_owners: dict[bytes, dict[bytes, None]] = {}
        self._unconfirmed: dict[bytes, dict[bytes, None]] = {}  # by the node of before a restart

    def add(self, record: ActorRecord) -> None:
        """There is such an actor."""
        self[record.actor_id] = record
        record.template.function.uses += 1
        for table, key in ((self._of_jobs, record.job_id), (self._of_owners, record.owner)):
            table.setdefault(key, {})[record.actor_id] = None

    def remove(self, record: ActorRecord) -> None:
        """The actor is dead, durably."""
        del self[record.actor_id]
        self.confirm(record)
        record.template.function.uses -= 1
        for table, key in ((self._of_jobs, record.job_id), (self._of_owners, record.owner)):
            del table[key][record.actor_id]
            if not table[key]:
                del table[key]

    def doubt(self, record: ActorRecord) -> None:
        """It is of before the head's restart, and nobody has told of it since."""
        record.unconfirmed = True
        self._unconfirmed.setdefault(record.node_id, {})[record.actor_id] = None

    def confirm(self, record: ActorRecord) -> None:
        """It is known where the actor is, or that it is nowhere; ``node_id`` is as it was."""
        if record.unconfirmed:
            record.unconfirmed = False
            self._unconfirmed[record.node_id].pop(record.actor_id, None)

    # ---- looks -----------------------------------------------------------------------------

    def of_job(self, job_id: bytes) -> list[ActorRecord]:
        """The actors of a job."""
        return [self[actor_id] for actor_id in self._of_jobs.get(job_id, ())]

    def of_owner(self, process_id: bytes) -> list[ActorRecord]:
        """The actors that a process has made."""
        return [self[actor_id] for actor_id in self._of_owners.get(process_id, ())]

    def doubtful(self, node_id: bytes) -> list[ActorRecord]:
        """Those that lived on the node before the restart, and of which nobody has told since."""
        return [self[actor_id] for actor_id in self._unconfirmed.get(node_id, ())]

    def all_doubtful(self) -> list[ActorRecord]:
        """Those of before the head's restart of which nobody has told yet."""
        return [record for node_id in self._unconfirmed for record in self.doubtful(node_id)]
