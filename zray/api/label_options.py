"""Options that select nodes by their labels: what may be said there, as in Ray's label_utils.

What a selector means is in ``zray.core.labels``. Must never talk to a cluster.
"""

from __future__ import annotations

import re
from typing import Any

from zray import limits
from zray.nodes.options import checked_text

Selector = tuple[tuple[str, str], ...]  # a label's name, and what its value is to be

_WORD = r"[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,61}[a-zA-Z0-9])?"
_NAME = re.compile(_WORD)
_PREFIX = re.compile(rf"({_WORD})(\.{_WORD})*")
_WANTED = re.compile(rf"!?({_WORD})?|!?(in)?\({_WORD}(, ?{_WORD})*\)")
_PREFIX_MAX = 253
_STRATEGIES_MAX = 100


def selectors(preferred: Selector, fallbacks: tuple[Selector, ...]) -> tuple[Selector, ...]:
    """All of a task's or actor's, the preferred one first; none if any node will do."""
    return (preferred, *fallbacks) if preferred or fallbacks else ()


def label_selector(option: str, value: Any) -> Selector:
    """Check a selector: a dict of a label's name to ``a``, ``!a``, ``in(a,b)`` or ``!in(a,b)``.

    Raises:
        TypeError, ValueError: it is none.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{option} must be a dict, got {value!r}")
    for name, wanted in value.items():
        _check_name(name)
        if not isinstance(wanted, str):
            raise TypeError(f"{option} must have strings only, got {wanted!r} for {name!r}")
        if not _WANTED.fullmatch(wanted):
            raise ValueError(
                f"Invalid label selector value `{wanted}`. It should be a value, or in(a,b) for "
                "several, with ! before it for any other; a value has up to 63 letters, digits, "
                "'-', '_' and '.', and begins and ends with a letter or digit"
            )
    size = sum(len(name) + len(wanted) for name, wanted in value.items())
    if size > limits.SELECTORS_CHARS_MAX:
        raise ValueError(
            f"{option} must have at most {limits.SELECTORS_CHARS_MAX} characters, got {size}"
        )
    return tuple(sorted(value.items()))


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"the names of labels must be strings, got {name!r}")
    checked_text("the name of a label", name)
    prefix, slash, word = name.rpartition("/")
    if slash and (len(prefix) > _PREFIX_MAX or not _PREFIX.fullmatch(prefix)):
        raise ValueError(
            f"Invalid label key prefix `{prefix}`. It must be DNS labels with dots between, not "
            f"longer than {_PREFIX_MAX} characters in all"
        )
    if not _NAME.fullmatch(word):
        raise ValueError(
            f"Invalid label key name `{word}`. It must have up to 63 letters, digits, '-', '_' and "
            "'.', and begin and end with a letter or digit"
        )


def fallback_strategy(option: str, value: Any) -> tuple[Selector, ...]:
    """Check what is to be instead where no node is selected: a list of dicts of options.

    Raises:
        TypeError, ValueError: it is none, or has another option than ``label_selector``.
    """
    if not isinstance(value, list):
        raise TypeError(f"{option} must be a list, got {value!r}")
    if len(value) > _STRATEGIES_MAX:
        raise ValueError(f"{option} must have at most {_STRATEGIES_MAX} entries, got {len(value)}")
    found = []
    for strategy in value:
        if not isinstance(strategy, dict):
            raise ValueError("Each element in fallback_strategy must be a dictionary.")
        if not strategy:
            raise ValueError("Empty dictionary found in `fallback_strategy`.")
        for name in strategy:
            if name != "label_selector":
                raise ValueError(
                    f"Unsupported option found: '{name}'. Only ['label_selector'] is supported."
                )
        selector = strategy["label_selector"] or {}
        if not isinstance(selector, dict):
            raise ValueError('The value of "label_selector" must be a dictionary.')
        found.append(label_selector("label_selector", selector))
    return tuple(found)
