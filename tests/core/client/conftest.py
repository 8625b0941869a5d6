from __future__ import annotations

import pytest

from zray import limits


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """One task alone is under way at a time; the others wait in the backlog."""
    monkeypatch.setattr(limits, "CLIENT_WINDOW_TASKS", 1)
