"""Tables for notebooks, as HTML. Pure; what it is given may contain anything."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import NamedTuple

from .progress import Progress, part_done

_LONGEST = 500
"""Characters of a value that are shown."""


class Bar(NamedTuple):
    """A value that is shown as a bar: ``part`` from 0 to 1, and a text beside it."""

    part: float
    text: str


def progress(reported: Progress) -> Bar | str:
    """Return what is shown of progress: a bar if its total is known, and its numbers and message."""
    number = f"{reported.done}" if reported.total is None else f"{reported.done} of {reported.total}"
    text, part = f"{number} {reported.message or ''}".strip(), part_done(reported)
    return text if part is None else Bar(part, text)


def table(title: str, rows: Iterable[tuple[str, object]]) -> str:
    """Return a table with a row for each name and value. Values that are None are left out."""
    cells = "".join(
        f'<tr><th style="text-align:left">{_text(name)}</th><td style="text-align:left">{_value(value)}</td></tr>'
        for name, value in rows
        if value is not None
    )
    return f"<table><caption>{_text(title)}</caption><tbody>{cells}</tbody></table>"


def _value(value: object) -> str:
    if isinstance(value, Bar):
        return f'<progress max="1" value="{value.part:.3f}"></progress> {_text(value.text)}'
    return _text(value)


def _text(value: object) -> str:
    text = str(value)
    shown = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    return html.escape("".join(char if char.isprintable() else " " for char in shown))
