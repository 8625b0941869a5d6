"""``LoggingConfig``: how Python's logging is written by a program and by its tasks and actors."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from zray.protocol import messages as m
from zray.runtime import log_records


@dataclasses.dataclass
class LoggingConfig:
    """For ``init(logging_config=...)``, as ``ray.LoggingConfig``: the root logger of the driver and
    of all its workers writes to stderr, with job_id, worker_id and node_id, in tasks with task_id,
    task_name and task_func_name, and in actors with actor_id and actor_name.

    Args:
        encoding: "TEXT", or "JSON": one object a line.
        log_level: the least that is written, as logging's names or numbers.
        additional_log_standard_attrs: attributes of ``logging.LogRecord`` that are written as
            well, beside asctime, levelname, message, filename, lineno and process.

    Raises:
        ValueError: an encoding, level or attribute that there is not.
    """

    encoding: str = "TEXT"
    log_level: str | int = "INFO"
    additional_log_standard_attrs: list[str] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.encoding not in log_records.ENCODINGS:
            raise ValueError(
                f"Invalid encoding type: {self.encoding}. Valid encoding types are: "
                f"{[*log_records.ENCODINGS]}"
            )
        for attribute in self.additional_log_standard_attrs:
            if attribute not in log_records.ATTRIBUTES:
                raise ValueError(
                    f"Unknown python logging standard attribute: {attribute}. The valid "
                    f"attributes are: {sorted(log_records.ATTRIBUTES)}"
                )
        self._level()

    def _level(self) -> int:
        level = self.log_level
        if isinstance(level, str):
            level = logging.getLevelNamesMapping().get(level, -1)
        if isinstance(level, bool) or not 0 <= level < 2**31:
            raise ValueError(
                f"log_level must be a name or number of logging's, got {self.log_level!r}"
            )
        return level

    def to_dict(self) -> dict[str, Any]:
        """A plain dict of the arguments."""
        return dataclasses.asdict(self)

    def settings(self) -> m.LogSettings:
        """The same for workers, checked again: the fields may be assigned to."""
        self.__post_init__()
        return m.LogSettings(self.encoding, self._level(), [*self.additional_log_standard_attrs])

    def configure(self, context: dict[str, str]) -> None:
        """Have this process write so; ``context`` is written with each record."""
        settings = self.settings()
        log_records.configure(
            settings.encoding, settings.level, settings.attributes, lambda: context
        )
