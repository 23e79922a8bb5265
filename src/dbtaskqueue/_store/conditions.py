"""From filters to what a search asks the database: named fragments with bound values, and what Python tests afterwards.

SQL compares everything but values within payloads, since engines disagree about JSON. For those, it only leaves out
payloads without the text of the name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .._formats import payload
from .._formats.filters import CALLBACK, COMMANDS, HIGHEST, PAYLOAD_PATH, Filters, Span, Term, Value
from ..errors import PayloadError
from .queries import Conditions

_FRAGMENTS = {
    "queue": "where_queue",
    "state": "where_state",
    "key": "where_key",
    "id": "where_id",
    "worker": "where_worker",
    "priority": "where_rank",
    "attempt": "where_attempt",
    "created": "where_created",
    "due": "where_due",
    "started": "where_started",
    "ended": "where_ended",
    "runs": "where_runs",
    "error": "where_error",
    "payload": "where_payload",
    "text": "where_text",
}
_FLAGS = {
    "blocked": ("where_not_blocked", "where_blocked"),
    "suspended": ("where_not_suspended", "where_suspended"),
    "command": ("where_no_command", "where_command"),
    "cancel_requested": ("where_no_cancel_requested", "where_cancel_requested"),
}
_EXACT = 10**15
"""Below it, a whole number has the same digits as an integer and as a float."""


class Tested(NamedTuple):
    """What is tested of a row: ``conditions`` with ``values`` by SQL, ``wanted`` by Python (paths of the payload).

    ``arguments``: the names of a task function's positional arguments, by function.
    """

    conditions: Conditions
    values: dict[str, object]
    wanted: list[tuple[list[str], list[Any]]]
    arguments: Mapping[str, Sequence[str]]


def to_tested(filters: Filters, arguments: Mapping[str, Sequence[str]], *, has_ended: bool = False) -> Tested:
    """Return what a search tests for these filters, and with ``has_ended`` that a task or its latest attempt has ended.

    ``overdue`` is left out: the caller knows which tasks are.
    """
    conditions: list[Sequence[tuple[str, int]]] = []
    values: dict[str, object] = {}
    paths = [term for term in filters.terms if term.name.startswith(PAYLOAD_PATH)]
    for term in filters.terms:
        if term.name != "overdue" and term not in paths:
            conditions.append([_bind(term.name, value, values) for value in term.values])
    for term in paths:
        needed = (_named(term, arguments), _valued(term))
        conditions += [[_bind("payload", text, values) for text in texts] for texts in needed if texts]
    if has_ended:
        conditions.append([("where_has_ended", 0)])
    wanted = [(_path(term), [json.loads(str(value)) for value in term.values]) for term in paths]
    return Tested(conditions, values, wanted, arguments)


def _bind(name: str, value: Value, values: dict[str, object]) -> tuple[str, int]:
    """Add a value to those that are bound; return its fragment and its number."""
    number = len(values)
    if isinstance(value, Span):
        values[f"low_{number}"], values[f"high_{number}"] = _ranks(value) if name == "priority" else value
        return _FRAGMENTS[name], number
    if isinstance(value, bool):
        return _FLAGS[name][value], number
    if name == "function":
        fragment, value = _function(value)
    elif name == "schedule":
        fragment, value = "where_schedule", f'"tick": {{"schedule": {json.dumps(value)}, '
    else:
        fragment = _FRAGMENTS[name]
    values[f"value_{number}"] = value
    return fragment, number


def _ranks(priorities: Span) -> Span:
    """Return the ranks of priorities. A rank is minus the priority."""
    return Span(-priorities.high, min(-priorities.low, HIGHEST))


def _function(value: str) -> tuple[str, str]:
    if value in (COMMANDS, CALLBACK):
        return ("where_command" if value == COMMANDS else "where_callback"), value
    return ("where_function_starts", value[:-1]) if value.endswith("*") else ("where_function", value)


# -- values within the payload ---------------------------------------------------------------------


def _path(term: Term) -> list[str]:
    return term.name.removeprefix(PAYLOAD_PATH).split(".")


def _named(term: Term, arguments: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the text of the name that a payload must have to match; none if one without it may match."""
    name = _path(term)[-1]
    if name.isdigit() or any(name in names for names in arguments.values()):
        return []
    return [f"{json.dumps(name, ensure_ascii=False)}:"]


def _valued(term: Term) -> list[str]:
    """Return texts of which a payload must have one to match, as ``payload.encode`` writes values; or none."""
    values = [json.loads(str(value)) for value in term.values]
    if any(isinstance(value, dict | list) or (isinstance(value, float) and value.is_integer()) for value in values):
        return []
    if any(isinstance(value, int) and abs(value) >= _EXACT for value in values):
        return []
    return [json.dumps(value, ensure_ascii=False) for value in values]


def has_paths(tested: Tested, function: str | None, is_command: bool, text: str | None) -> bool:
    """Return whether a payload has the values that the filters name."""
    try:
        value = None if text is None else payload.decode(text)
    except PayloadError:
        return False
    names = tested.arguments.get(function or "", ())
    is_call = function is not None and not is_command
    return all(_has(path, values, value, names if is_call else None) for path, values in tested.wanted)


def _has(path: list[str], wanted: list[Any], value: Any, names: Sequence[str] | None) -> bool:
    found = [*_at(value, path)]
    if names is not None and isinstance(value, dict):  # a call of a task function
        found += _at(value.get("kwargs"), path)
        if path[0] in names and isinstance(args := value.get("args"), list):
            found += _at(args, [str(names.index(path[0])), *path[1:]])
    return any(_same(each, other) for each in found for other in wanted)


def _at(value: Any, path: list[str]) -> list[Any]:
    """Return the value at a path, in a list with no or one element."""
    for name in path:
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isascii() and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return []
    return [value]


def _same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal. Unlike in Python, true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
