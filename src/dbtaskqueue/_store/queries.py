"""Loads the named queries of ``sql/*.sql``. Pure: text in, a dict of statements out.

A query starts with ``-- name: NAME`` and ends at the next one; comments are left out. ``{{NAME}}`` includes the text of
another query of the same engine, or a list of columns (``records.py``). Nothing else is ever put into SQL text: values
are bound, written ``:name``.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence

from .records import column_lists

FILES = (
    "common",
    "database",
    "tasks",
    "claims",
    "dependencies",
    "schedules",
    "workers",
    "queues",
    "listing",
    "search",
    "operations",
    "history",
    "copying",
)
"""The files of ``sql/`` for every engine: one for each facet, and ``common`` with what several of them include."""

_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"\{\{(\w+)\}\}")
_PARAMETER = re.compile(r"(?<![:\w]):([a-z]\w*)")
_REPEATED = re.compile(r"\[\[(.*?)(,?)\]\]", re.DOTALL)


def load(engine: str, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the statements for ``engine``: those of the facets, overridden by what the engine's own file has.

    ``given`` are texts that may be included like queries, such as the quoted name of a schema.
    """
    queries = sources(engine)
    others = {**column_lists(queries), **queries, **(given or {})}
    return {name: _resolve(text, others) for name, text in queries.items()}


def sources(engine: str) -> dict[str, str]:
    """Return the queries of ``engine`` as they are written, with their includes."""
    found: dict[str, str] = {}
    for file in (*FILES, engine):
        found |= _split(_text(f"sql/{file}.sql"))
    return found


def migrations(engine: str, last: int, given: Mapping[str, str] | None = None) -> list[list[str]]:
    """Return the statements that lead from an empty database to schema version ``last``, a list for each version."""
    texts = [_text(f"sql/migrations/{engine}/{number:04}.sql") for number in range(1, last + 1)]
    return [_statements(_resolve(text, given or {})) for text in texts]


def pyformat(queries: Mapping[str, str]) -> dict[str, str]:
    """Return the statements with their parameters written ``%(name)s``, as the drivers of servers need them."""
    return {name: _PARAMETER.sub(r"%(\1)s", text.replace("%", "%%")) for name, text in queries.items()}


def positional(text: str) -> tuple[str, list[str]]:
    """Return the statement with ``?`` for each parameter, and the names of its parameters in order."""
    return _PARAMETER.sub("?", text), _PARAMETER.findall(text)


def numbered(text: str) -> tuple[str, list[str]]:
    """Return the statement with ``?1``, ``?2`` and so on, and the names in this order: SQLite binds each only once."""
    names = list(dict.fromkeys(_PARAMETER.findall(text)))
    return _PARAMETER.sub(lambda match: f"?{names.index(match[1]) + 1}", text), names


def with_backticks(queries: Mapping[str, str]) -> dict[str, str]:
    """Return the statements with names quoted for MariaDB in any sql_mode. Texts are in single quotes."""
    return {name: text.replace('"', "`") for name, text in queries.items()}


def repeated(text: str, times: int) -> str:
    """Return the statement with each ``[[…]]`` repeated, its parameters ``…_n`` numbered; ``[[…,]]``: with commas."""

    def repeat(match: re.Match[str]) -> str:
        return f"{match[2]} ".join(match[1].replace("_n)s", f"_{number})s") for number in range(times))

    return _REPEATED.sub(repeat, text)


Conditions = Sequence[Sequence[tuple[str, int]]]
"""Conditions that must all hold. Each is a choice of named fragments, with the numbers of their values."""
_CONDITIONS = re.compile(r":conditions\b|%\(conditions\)s")
_NUMBERED = re.compile(r"\b(value|low|high)_n\b")


def composed(text_of: Callable[[str], str], name: str, conditions: Conditions) -> str:
    """Return the query ``name`` with conditions in place of ``:conditions``.

    A condition is made of named queries of the same engine. In each, ``:value_n`` becomes ``:value_3`` and so on.
    """

    def fragment(name: str, number: int) -> str:
        return "(" + _NUMBERED.sub(lambda match: f"{match[1]}_{number}", text_of(name)) + ")"

    whole = " AND ".join("(" + " OR ".join(fragment(*choice) for choice in choices) + ")" for choices in conditions)
    return _CONDITIONS.sub(lambda match: whole or "1 = 1", text_of(name))


def _text(path: str) -> str:
    data = pkgutil.get_data(__package__, path)
    assert data is not None
    return data.decode()


def _resolve(text: str, others: Mapping[str, str]) -> str:
    while _INCLUDE.search(text):
        text = _INCLUDE.sub(lambda match: others[match[1]], text)
    return text


def _split(text: str) -> dict[str, str]:
    pieces = _HEAD.split(text)
    return {name: _without_comments(body).strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def _statements(script: str) -> list[str]:
    """Split a script: each statement ends with ``;`` at the end of a line, and no other line ends like that."""
    return [
        statement.strip()
        for statement in re.split(r";\s*$", _without_comments(script), flags=re.M)
        if statement.strip()
    ]


def _without_comments(text: str) -> str:
    return "\n".join(line.partition("--")[0].rstrip() for line in text.splitlines())
