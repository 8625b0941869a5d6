"""Labels of a node from its environment."""

from __future__ import annotations

import pytest

from zray.nodes.raylet.node_labels import labels_of


def test_the_environment_s_defaults_count_less_than_options_and_these_less_than_overrides() -> None:
    environment = {
        "RAY_NODE_ZONE": "a",
        "ZRAY_NODE_ZONE": "b",
        "RAY_NODE_MARKET_TYPE": "spot",
        "RAY_OVERRIDE_LABELS": '{"x": "2"}',
    }
    found = labels_of({"x": "1", "ray.io/market-type": "on-demand"}, environment)
    assert found == {
        "ray.io/availability-zone": "b",
        "ray.io/market-type": "on-demand",
        "x": "2",
    }
    assert labels_of({}, {}) == {}


@pytest.mark.parametrize("text", ["x=1", "[1]", '{"x": 1}', "{"])
def test_an_override_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ZRAY_OVERRIDE_LABELS"):
        labels_of({}, {"ZRAY_OVERRIDE_LABELS": text})
