"""Arrays as text: PostgreSQL reads the values that were written."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as some
from servers.shared import shared_postgresql_url

from dbtaskqueue._store.postgresql.arrays import numbers, texts

TEXTS = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def connection() -> psycopg.Connection:
    return psycopg.connect(shared_postgresql_url(), autocommit=True)


@given(some.lists(some.none() | TEXTS, min_size=1))
def test_texts(connection: psycopg.Connection, values: list[str | None]) -> None:
    [read] = connection.execute("SELECT CAST(%s AS text[])", [texts(values)]).fetchone() or ()
    assert read == (values if any(value is not None for value in values) else None)


@given(some.lists(some.none() | some.integers(-(2**63), 2**63 - 1)))
def test_numbers(connection: psycopg.Connection, values: list[int | None]) -> None:
    assert connection.execute("SELECT CAST(%s AS bigint[])", [numbers(values)]).fetchone() == (values,)


def test_keywords_of_the_array_syntax(connection: psycopg.Connection) -> None:
    values = ["", "NULL", "null", "{}", '"', "\\", ',"', "{a,b}", " x ", "\\N", '["a", "b\\"c"]', None]
    assert connection.execute("SELECT CAST(%s AS text[])", [texts(values)]).fetchone() == (values,)
