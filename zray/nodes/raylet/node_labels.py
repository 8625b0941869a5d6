"""Labels that a node has from its environment, as Ray's: those of clouds, and those that override.

``RAY_NODE_TYPE_NAME``, ``RAY_NODE_MARKET_TYPE``, ``RAY_NODE_REGION`` and ``RAY_NODE_ZONE`` are what
launchers set; ``RAY_OVERRIDE_LABELS`` is a JSON object that counts more than the node's options.
All of them may begin with ``ZRAY_`` as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

OVERRIDE = "OVERRIDE_LABELS"
DEFAULTS = {
    "NODE_TYPE_NAME": "ray.io/node-group",
    "NODE_MARKET_TYPE": "ray.io/market-type",
    "NODE_REGION": "ray.io/availability-region",
    "NODE_ZONE": "ray.io/availability-zone",
}


def labels_of(options: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """All that a node was started with. ``options``: what was said by its options.

    Raises:
        ValueError: what is to override them is no JSON object of texts.
    """
    found = {label: _variable(environment, name) for name, label in DEFAULTS.items()}
    given = {label: value for label, value in found.items() if value}
    return {**given, **options, **_override(_variable(environment, OVERRIDE))}


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(f"ZRAY_{name}") or environment.get(f"RAY_{name}") or ""


def _override(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ValueError(f"ZRAY_{OVERRIDE}: {text!r} is not JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
        raise ValueError(f"ZRAY_{OVERRIDE}: {text!r} is no JSON object whose values are texts")
    return found
