"""How notebooks show something of zray's: a small table that is legible on light and dark pages.

Owns the only place where texts become markup: everything is escaped here.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

_TEXT_MAX = 2000  # characters of one cell
# Colours of the page itself, so that it fits whatever the theme is; no style sheet, which some
# notebooks remove.
_CARD = (
    "display:inline-block;color:inherit;background:transparent;border:1px solid currentColor;"
    "border-radius:4px;padding:4px 10px;opacity:0.95"
)
_CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0;background:transparent"


def card(title: str, rows: Iterable[tuple[str, str]]) -> str:
    """HTML of a title and of what is known, each with its name."""
    cells = "".join(
        f'<tr style="background:transparent"><th scope="row" style="{_CELL};font-weight:normal">'
        f'{_escaped(name)}</th><td style="{_CELL}">{_escaped(value)}</td></tr>'
        for name, value in rows
    )
    return (
        f'<div style="{_CARD}"><strong>{_escaped(title)}</strong>'
        f'<table style="border:0;color:inherit">{cells}</table></div>'
    )


def _escaped(text: str) -> str:
    shown = text if len(text) <= _TEXT_MAX else f"{text[:_TEXT_MAX]}..."
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in shown)
    return html.escape(printable)
