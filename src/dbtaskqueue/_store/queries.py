"""Loads the named queries of ``sql/*.sql``. Pure: text in, a dict of statements out.

A query begins with ``-- name: NAME`` and runs to the next one; comments are for readers and stay
behind. ``{{NAME}}`` stands for the text of another query of the same engine, so that a list of
columns is written once. Nothing else is ever put into SQL text: values are bound.
"""

from __future__ import annotations

import pkgutil
import re

_HEAD = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_INCLUDE = re.compile(r"\{\{(\w+)\}\}")


def load(engine: str) -> dict[str, str]:
    """The statements for ``engine``: ``common.sql``, overridden by what the engine's own file has."""
    queries = {**_split(_text("sql/common.sql")), **_split(_text(f"sql/{engine}.sql"))}
    for name in queries:
        while _INCLUDE.search(queries[name]):
            queries[name] = _INCLUDE.sub(lambda match: queries[match[1]], queries[name])
    return queries


def migrations(engine: str, last: int) -> list[str]:
    """The scripts that lead from an empty database to schema version ``last``, in order."""
    return [_text(f"sql/migrations/{engine}/{number:04}.sql") for number in range(1, last + 1)]


def _text(path: str) -> str:
    data = pkgutil.get_data(__package__, path)
    assert data is not None
    return data.decode()


def _split(text: str) -> dict[str, str]:
    pieces = _HEAD.split(text)
    return {
        name: "\n".join(line for line in body.splitlines() if not line.lstrip().startswith("--")).strip()
        for name, body in zip(pieces[1::2], pieces[2::2], strict=True)
    }
