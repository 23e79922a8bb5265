"""Filters of tasks: what ``find`` takes, with the same names in Python, on a command line, in URLs and in a search box.

``parse`` checks filters by name and fixes relative times at ``now``. ``words.py`` reads and writes them as words. Pure.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, get_args

from .._system import clock
from ..checks import check_queue, listed, shown
from ..states import TaskState
from . import quantities

LOWEST, HIGHEST = -(2**63), 2**63 - 1
"""The ends of a span that has no bound there."""
MOST_VALUES, MOST_CHARACTERS = 30, 2000
"""What a query may have that comes from a URL, a command line or a search box."""

SortName = Literal["newest", "line", "longest", "due", "ended"]
SORTS: tuple[SortName, ...] = get_args(SortName)
PAYLOAD_PATH = "payload."
"""The start of the names that compare a value within the payload."""
COMMANDS, CALLBACK = "(commands)", "(callback)"
"""Values of ``function`` for tasks without a task function."""


class Span(NamedTuple):
    """Whole numbers from ``low`` to ``high``, both included."""

    low: int = LOWEST
    high: int = HIGHEST


Value = str | bool | Span
"""A checked value. That of a ``payload.a.b`` filter is a JSON text."""


class Term(NamedTuple):
    """One filter: a task matches if one of ``values`` does. ``said``: the values as they were given, as texts."""

    name: str
    values: tuple[Value, ...]
    said: tuple[str, ...]


@dataclass(frozen=True)
class Filters:
    """Checked filters: a task matches if all terms do. Times are absolute."""

    terms: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.terms)

    def get(self, name: str) -> tuple[Value, ...]:
        """Return the values of a filter, none if it was not given."""
        return tuple(value for term in self.terms if term.name == name for value in term.values)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the values of a filter whose values are texts."""
        return tuple(value for value in self.get(name) if isinstance(value, str))

    def spans(self, name: str) -> tuple[Span, ...]:
        """Return the values of a filter whose values are spans."""
        return tuple(value for value in self.get(name) if isinstance(value, Span))

    def flag(self, name: str) -> bool | None:
        """Return the value of a filter that is true or false; None if it was not given."""
        values = self.get(name)
        return None if not values else bool(values[0])

    def pairs(self) -> list[tuple[str, str]]:
        """Return names and values as they were given, for URLs and chips."""
        return [(term.name, text) for term in self.terms for text in term.said]

    def where(self) -> dict[str, list[str]]:
        """Return the values as they were given, by name: what ``parse`` takes."""
        found: dict[str, list[str]] = {}
        for name, text in self.pairs():
            found.setdefault(name, []).append(text)
        return found

    def with_queues(self, *queues: str) -> Filters:
        """Return the filters limited to these queues, unless they name queues themselves."""
        return self if self.get("queue") else Filters((Term("queue", queues, queues), *self.terms))

    def to_json(self) -> str:
        """Return the filters as JSON text. Unlike ``where``, it has absolute times."""
        return json.dumps([[term.name, term.values, term.said] for term in self.terms])


def from_json(text: str) -> Filters:
    """Return the filters that ``to_json`` has written."""

    def value(stored: Any) -> Value:
        return Span(*stored) if isinstance(stored, list) else stored

    return Filters(tuple(Term(name, tuple(map(value, values)), tuple(said)) for name, values, said in json.loads(text)))


def parse(given: Mapping[str, Any], now: int) -> Filters:
    """Return filters by name as ``find`` takes them, checked. ``now`` in microseconds: relative times end there.

    A list is a choice. None means that the filter is not given, except for a value of the payload, where it is null.
    Raises ValueError that names the filter.
    """
    terms: list[Term] = []
    for name, value in given.items():
        read = _reader(name)
        if value is None and not name.startswith(PAYLOAD_PATH):
            continue
        choices = _choices(name, value)
        if not choices:
            raise ValueError(f"{name}: at least one value is needed")
        if name in _FLAGS and len(choices) > 1:
            raise ValueError(f"{name} must be true or false, not both")
        if name == "text":  # each text must occur
            terms += [Term(name, (read(name, each, now),), (_said(name, each),)) for each in choices]
        else:
            values = tuple(read(name, each, now) for each in choices)
            terms.append(Term(name, values, tuple(_said(name, each) for each in choices)))
    return Filters(tuple(terms))


def check_size(pairs: Iterable[tuple[str, str]]) -> None:
    """Raise ValueError if a query has more than 30 values or 2,000 characters."""
    found = list(pairs)
    if len(found) > MOST_VALUES:
        raise ValueError(f"a query may have at most {MOST_VALUES} filters, not {len(found)}")
    if (length := sum(len(name) + len(value) + 1 for name, value in found)) > MOST_CHARACTERS:
        raise ValueError(f"a query may have at most {MOST_CHARACTERS} characters, not {length}")


def check_sort(sort: str) -> SortName:
    """Return the name of a sort. Raises ValueError."""
    for name in SORTS:
        if name == sort:
            return name
    raise ValueError(f"sort must be one of {', '.join(SORTS)}, not {shown(sort)}")


def is_filter(name: str) -> bool:
    """Return whether there is a filter of that name."""
    return name in _READERS or (name.startswith(PAYLOAD_PATH) and name != PAYLOAD_PATH)


# -- the values of each filter ---------------------------------------------------------------------

_COMPARED = re.compile(r"(>=|<=|>|<|=)?(-?\d{1,30})", re.ASCII)
_RANGE = re.compile(r"(-?\d{1,30})?\.\.(-?\d{1,30})?", re.ASCII)
_ID_RANGE = re.compile(r"(\d{1,30})-(\d{1,30})", re.ASCII)
_AGE = re.compile(r"\d+(?:\.\d+)?[smhdw]", re.ASCII)
_COMPARISON = re.compile(r"(>=|<=|>|<|=)?(.*)", re.DOTALL)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TRUE, _FALSE = {"true", "yes", "1"}, {"false", "no", "0"}
_SPLIT = {"queue", "state", "id", "worker", "priority", "attempt"}
"""Filters whose values contain no comma, so that one text may list several."""


def _choices(name: str, value: Any) -> list[Any]:
    given = list(value) if isinstance(value, list | tuple | set | frozenset) else [value]
    if name.startswith(PAYLOAD_PATH) and not isinstance(value, tuple | list):
        return [value]
    if name in _SPLIT:
        return [part for each in given for part in (each.split(",") if type(each) is str else [each])]
    return given


def _said(name: str, value: Any) -> str:
    if name.startswith(PAYLOAD_PATH):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)


def _text(name: str, value: Any, now: int) -> str:
    if not isinstance(value, str) or not value or _UNSTORABLE.search(value):
        raise ValueError(f"{name} must be a text that is not empty, without U+0000, not {shown(value)}")
    return str(value)


def _queue(name: str, value: Any, now: int) -> str:
    try:
        return check_queue(value)
    except ValueError as error:
        raise ValueError(f"queue: {error}") from None


def _state(name: str, value: Any, now: int) -> str:
    if isinstance(value, str) and value in set(TaskState):
        return str(value)
    raise ValueError(f"state must be one of {', '.join(TaskState)}, not {shown(value)}")


def _flag(name: str, value: Any, now: int) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise ValueError(f"{name} must be true or false, not {shown(value)}")


def _number(name: str, value: Any, now: int) -> Span:
    if isinstance(value, int) and not isinstance(value, bool):
        return _span(value, value)
    if isinstance(value, str):
        text = value.strip()
        if match := _COMPARED.fullmatch(text):
            return _compared(match[1] or "=", int(match[2]))
        if (match := _RANGE.fullmatch(text)) and text != "..":
            return _span(*(int(end) if end else bound for end, bound in zip(match.groups(), Span(), strict=True)))
        if name == "id" and (match := _ID_RANGE.fullmatch(text)):
            return _span(int(match[1]), int(match[2]))
    forms = "a number, >=3 or 3-5" if name == "id" else "a number, >=3 or 3..5"
    raise ValueError(f"{name} must be {forms}, not {shown(value)}")


def _compared(sign: str, number: int) -> Span:
    low = number if sign in (">=", "=") else number + 1 if sign == ">" else LOWEST
    high = number if sign in ("<=", "=") else number - 1 if sign == "<" else HIGHEST
    return _span(low, high)


def _span(low: int, high: int) -> Span:
    """Return a span that every engine can compare. One without a number in it is (1, 0)."""
    if low > high or low > HIGHEST or high < LOWEST:
        return Span(1, 0)
    return Span(max(low, LOWEST), min(high, HIGHEST))


def _json(name: str, value: Any, now: int) -> str:
    """Return a value of the payload as JSON text: a text that is JSON stands for that value."""
    if isinstance(value, str):
        _text(name, value, now)
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value, parse_constant=_no_constant)
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError(f"{name} must be a JSON value, not {shown(value)}") from None


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _runs(name: str, value: Any, now: int) -> Span:
    """Return when a task has started that runs that long. A duration alone is the shortest."""
    if isinstance(value, int | float | timedelta) and not isinstance(value, bool):
        sign, micros = ">=", _micros(name, value)
    elif isinstance(value, str) and ".." in value:
        least, _, most = value.strip().partition("..")
        low = HIGHEST if not least else now - _micros(name, least)
        return _span(LOWEST if not most else now - _micros(name, most), low)
    elif isinstance(value, str):
        match = _COMPARISON.fullmatch(value.strip())
        assert match is not None
        sign, micros = match[1] or ">=", _micros(name, match[2])
    else:
        raise ValueError(f"{name} must be a duration such as >1h, not {shown(value)}")
    return _compared({">": "<", ">=": "<=", "<": ">", "<=": ">="}.get(sign, sign), now - micros)


def _micros(name: str, value: Any) -> int:
    try:
        seconds = quantities.seconds(value) if isinstance(value, str) else value
        seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        return round(min(max(seconds, 0), 1e12) * 1_000_000)
    except (ValueError, OverflowError):
        raise ValueError(f"{name} must be a duration such as >1h, not {shown(value)}") from None


def _time(name: str, value: Any, now: int) -> Span:
    """Return the span of a time. Ages count into the past, those of ``due`` into the future."""
    try:
        if isinstance(value, datetime):
            return Span(clock.from_datetime(value), HIGHEST)
        if isinstance(value, timedelta):
            return _within(name, value, now)
        if isinstance(value, str):
            return _time_text(name, value.strip(), now)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    raise ValueError(f"{name} must be a datetime, or a text such as 2h, >2h or 2030-01-31T12:00.., not {shown(value)}")


def _time_text(name: str, text: str, now: int) -> Span:
    if ".." in text and text != "..":
        first, _, last = text.partition("..")
        ends = [_moment(name, end, now) if end else None for end in (first, last)]
        if _AGE.fullmatch(first) and _AGE.fullmatch(last) and (ends[0] or 0) > (ends[1] or 0):
            ends.reverse()  # "1h..2h" and "2h..1h" are the same
        return _span(LOWEST if ends[0] is None else ends[0], HIGHEST if ends[1] is None else ends[1])
    match = _COMPARISON.fullmatch(text)
    assert match is not None
    sign, rest = match[1], match[2]
    if _AGE.fullmatch(rest) and sign != "=":
        if sign in (None, "<", "<="):
            return _within(name, quantities.duration(rest), now)
        limit = _moment(name, rest, now)  # longer ago, or further ahead
        return _span(limit + 1, HIGHEST) if name == "due" else _span(LOWEST, limit - 1)
    return _compared(sign or ">=", _moment(name, rest, now))


def _within(name: str, age: Any, now: int) -> Span:
    micros = _micros(name, age)
    return _span(now, now + micros) if name == "due" else _span(now - micros, HIGHEST)


def _moment(name: str, text: str, now: int) -> int:
    if _AGE.fullmatch(text):
        micros = _micros(name, text)
        return now + micros if name == "due" else now - micros
    return clock.from_datetime(quantities.moment(text, other="24h"))


Reader = Callable[[str, Any, int], Value]
_FLAGS = ("blocked", "suspended", "command", "overdue", "cancel_requested")
_READERS: dict[str, Reader] = {
    "queue": _queue,
    "state": _state,
    **dict.fromkeys(("function", "key", "schedule", "error", "payload", "text"), _text),
    **dict.fromkeys(("id", "worker", "priority", "attempt"), _number),
    "runs": _runs,
    **dict.fromkeys(("created", "due", "started", "ended"), _time),
    **dict.fromkeys(_FLAGS, _flag),
}
NAMES = (*_READERS, "payload.NAME")


def _reader(name: str) -> Reader:
    if name in _READERS:
        return _READERS[name]
    if isinstance(name, str) and is_filter(name):
        return _json
    raise ValueError(f"unknown filter {shown(name)}; the filters are {listed(NAMES, 30)}")
