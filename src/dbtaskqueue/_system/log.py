"""The package's logger: events with fields. The library adds no handler; the command line does.

It does not add a NullHandler either: if a program has not set up logging, Python prints warnings to stderr as a last
resort. That prints only the text, so the text contains all fields. Payloads and passwords are never among them.
"""

from __future__ import annotations

import logging
import math
import time

from ..checks import escaped

logger = logging.getLogger("dbtaskqueue")
_LONGEST_LINE = 300


def event(
    level: int, message: str, /, *, exc_info: BaseException | None = None, stack: str | None = None, **fields: object
) -> None:
    """Log ``message`` with ``fields``: in the text as ``name=value``, and as ``record.fields``.

    In the text, control characters are escaped: values may come from the database, and a terminal would interpret them.
    ``stack`` is the stack of another thread, which is appended.
    """
    if not logger.isEnabledFor(level):
        return
    shown = " ".join(f"{name}={value}" for name, value in fields.items())
    text, extra = escaped(f"{message} {shown}".rstrip()), {"fields": fields}
    if stack is None:
        logger.log(level, "%s", text, exc_info=exc_info, extra=extra)
    else:  # Logger.log could add only the stack of its own caller
        record = logger.makeRecord(logger.name, level, __file__, 0, "%s", (text,), None, None, extra, stack)
        logger.handle(record)


def first_line(error: BaseException) -> str:
    """Return the first line with text of an exception's message, truncated if it is long; "" if there is none."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # the exception's own __str__ raises
        return "(its text cannot be shown)"
    line = escaped(lines[0]) if lines else ""
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}…"


class Throttle:
    """Allows each key once in ``seconds``, and at most ``most`` different keys in that time."""

    def __init__(self, seconds: float = 60.0, most: int = 1000) -> None:
        self._seconds = seconds
        self._most = most
        self._last: dict[object, float] = {}

    def lets(self, key: object) -> bool:
        """Return whether the key is allowed now, and count it."""
        now = time.monotonic()
        if now < self._last.get(key, -math.inf) + self._seconds:
            return False
        if len(self._last) >= self._most:
            self._last = {known: at for known, at in self._last.items() if now < at + self._seconds}
        if len(self._last) >= self._most:
            return False
        self._last[key] = now
        return True
