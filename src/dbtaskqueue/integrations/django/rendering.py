"""How the admin shows stored values: as escaped text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.timezone import template_localtime

from dbtaskqueue import Attempt, PayloadError
from dbtaskqueue.checks import escaped

_SHOWN_TEXT = 20_000


def as_text(text: str) -> SafeString:
    """Return a text of several lines, escaped. Of a long one, the end is shown."""
    shown = escaped(text[-_SHOWN_TEXT:], keep="\n\t")
    before = f"… {len(text) - _SHOWN_TEXT} characters before\n" if len(text) > _SHOWN_TEXT else ""
    return format_html('<pre class="task-text">{}{}</pre>', before, shown)


def as_json(read: Callable[[], object]) -> SafeString:
    """Return a stored JSON value as text, escaped."""
    try:
        text = json.dumps(read(), indent=2, ensure_ascii=False)
    except PayloadError as error:
        text = str(error)
    shown = text if len(text) <= _SHOWN_TEXT else f"{text[:_SHOWN_TEXT]}\n… {len(text) - _SHOWN_TEXT} more characters"
    return format_html('<pre class="task-text">{}</pre>', escaped(shown, keep="\n"))


def _row(attempt: Attempt) -> SafeString:
    """Return the rows of the table of attempts for one of them."""
    cells = attempt.number, as_time(attempt.started_at), as_time(attempt.finished_at), attempt.outcome or "running"
    row = format_html("<tr>{}</tr>", format_html_join("", "<td>{}</td>", ([c] for c in (*cells, attempt.worker or ""))))
    texts = [(name, text) for name, text in (("error", attempt.error), ("output", attempt.output)) if text]
    more = format_html_join("", '<tr><td>{}</td><td colspan="4">{}</td></tr>', ((n, as_text(t)) for n, t in texts))
    return format_html("{}{}", row, more)


def as_time(time: datetime | None) -> SafeString | str:
    """Return a time in the user's time zone."""
    if time is None:
        return "-"
    local = template_localtime(time)  # in UTC without USE_TZ
    return format_html('<time datetime="{}">{}</time>', time.isoformat(), f"{local:%Y-%m-%d %H:%M:%S}")


def as_table(attempts: Sequence[Attempt]) -> SafeString | str:
    """Return a table of attempts, the last one first, with their errors and output."""
    rows = format_html_join("", "{}", ([_row(attempt)] for attempt in reversed(attempts)))
    head = mark_safe("<tr><th>number</th><th>started</th><th>ended</th><th>outcome</th><th>worker</th></tr>")
    return format_html('<table class="task-attempts">{}{}</table>', head, rows) if attempts else "-"
