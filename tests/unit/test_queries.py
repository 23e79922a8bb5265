"""The named queries: each is used and complete, and only names are formatted into SQL text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import source_of

from dbtaskqueue._store import queries
from dbtaskqueue._store.records import column_lists
from dbtaskqueue._store.verbs import copying

STORE = source_of() / "_store"
ENGINES = [path.stem for path in (STORE / "sql").glob("*.sql") if path.stem not in queries.FILES]
INCLUDE = re.compile(r"\{\{(\w+)\}\}")
GIVEN = {"schema": "somewhere."}
"""The texts that queries insert for names such as the schema; another engine would insert others."""
OPTIONAL = {
    *(
        "schema",
        "for_update",
        "for_update_if_free",
        "for_share",
        "by_id",
        "by_claimable",
        "by_blocked",
        "by_open_edge",
        "by_held",
        "by_ended",
        "by_action_id",
        "by_operation_id",
    ),
}
"""Names that may be empty for an engine."""


def names(file: Path) -> list[str]:
    return re.findall(r"^-- name: (\w+)$", file.read_text(), re.MULTILINE)


def test_there_are_queries_for_an_engine() -> None:
    assert "sqlite" in ENGINES


@pytest.mark.parametrize("file", sorted((STORE / "sql").glob("*.sql")), ids=lambda path: path.name)
def test_each_name_is_used_once(file: Path) -> None:
    found = names(file)
    assert found
    assert len(found) == len(set(found))


@pytest.mark.parametrize("engine", ENGINES)
def test_every_query_is_used_by_its_engine(engine: str) -> None:
    texts = list(queries.sources(engine).values())
    files = [path for part in (".", "verbs", engine) for path in (STORE / part).glob("*.py")]
    code = "\n".join(path.read_text() for path in files)
    texts += column_lists(queries.sources(engine)).values()
    used = set(re.findall(r"[\"'](\w+)[\"']", code)) | {name for text in texts for name in INCLUDE.findall(text)}
    used |= {*copying.LOADING.values(), *(f"export_{table}" for table in copying.TABLES)}
    unused = sorted(set(queries.load(engine, GIVEN)) - used)
    assert unused == []


@pytest.mark.parametrize("engine", ENGINES)
def test_every_query_is_complete(engine: str) -> None:
    for name, text in queries.load(engine, GIVEN).items():
        assert text or name in OPTIONAL, name
        assert "{{" not in text, name
        assert "}}" not in text, name
        assert "--" not in text, name


@pytest.mark.parametrize("engine", ENGINES)
def test_every_include_resolves(engine: str) -> None:
    names = {*queries.load(engine, GIVEN), *column_lists(()), *GIVEN}
    for text in queries.sources(engine).values():
        assert set(INCLUDE.findall(text)) <= names


@pytest.mark.parametrize("engine", ENGINES)
def test_a_query_that_overrides_another_gives_a_reason(engine: str) -> None:
    common = {name for file in queries.FILES for name in names(STORE / "sql" / f"{file}.sql")}
    own = (STORE / "sql" / f"{engine}.sql").read_text()
    for piece in own.split("-- name: ")[1:]:
        name = piece.split()[0]
        assert name not in common or "-- Differs because" in piece, f"{name} differs without a reason"


def test_no_value_is_formatted_into_sql() -> None:
    """Values are bound: no statement is made with an f-string, %, + or format()."""
    statement = re.compile(r"f[\"'](?:[^\"']*\b)?(?:SELECT|INSERT|UPDATE|DELETE|PRAGMA|BEGIN|CREATE)\b")
    for path in STORE.rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            shown = "sqlite3 {" in line  # a command that doctor prints
            assert shown or not statement.search(line), f"{path.name}:{number}"


def test_repeated_parts_of_a_query() -> None:
    texts = queries.pyformat({"a": "CASE id [[WHEN :id_n THEN :at_n]] END IN ([[:id_n,]]) AND queue = :queue"})
    assert queries.repeated(texts["a"], 2) == (
        "CASE id WHEN %(id_0)s THEN %(at_0)s WHEN %(id_1)s THEN %(at_1)s END IN (%(id_0)s, %(id_1)s)"
        " AND queue = %(queue)s"
    )
    assert queries.repeated(texts["a"], 1).count("WHEN") == 1


def test_parameters_by_position() -> None:
    text, names = queries.positional("VALUES (:id, 'pending', :at, :id)")
    assert text == "VALUES (?, 'pending', ?, ?)"
    assert names == ["id", "at", "id"]


def test_backticks_quote_names_only() -> None:
    for name, text in queries.load("mariadb", GIVEN).items():
        assert '"' not in re.sub(r"'[^']*'", "", queries.with_backticks({name: text})[name])
        assert all('"' not in literal for literal in re.findall(r"'[^']*'", text)), name
