"""What tasks that wait long for arguments let others have meanwhile."""

from __future__ import annotations

import pytest

from tests.core.benches import UNIT, identity
from zray import limits
from zray.core import resources
from zray.core.machine import NEVER
from zray.core.raylet.lending import Lending

NEEDS = resources.needs([("CPU", UNIT)])


def test_only_who_waits_long_lends() -> None:
    lending = Lending()
    lending.waits(identity("a"), NEEDS, 0.0)
    lending.waits(identity("b"), NEEDS, 0.2)
    assert lending.deadline() == limits.LEND_AFTER_S
    lending.step(lending.deadline() - 0.01)
    assert not lending.lent
    lending.step(lending.deadline())
    assert lending.lent == {"CPU": UNIT}
    assert lending.deadline() == pytest.approx(0.2 + limits.LEND_AFTER_S)
    lending.step(lending.deadline())
    assert lending.lent == {"CPU": 2 * UNIT} and lending.deadline() == NEVER


def test_what_was_lent_is_taken_back_once_and_only_by_its_lender() -> None:
    lending = Lending()
    for name in ("a", "b"):
        lending.waits(identity(name), NEEDS, 0.0)
    lending.waits_no_more(identity("b"))
    lending.step(10.0)
    assert lending.lent == {"CPU": UNIT}
    for name in ("b", "a", "a"):
        lending.waits_no_more(identity(name))
    assert not any(lending.lent.values())
