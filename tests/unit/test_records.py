"""The records of the store are declared once; lists of columns and records are made from the declarations."""

from __future__ import annotations

import re

import pytest

from dbtaskqueue._store import queries
from dbtaskqueue._store.contract import NewTask, TaskRecord, fresh
from dbtaskqueue._store.records import FOUND, NOT_OF_A_CLAIM, TABLES, column_lists, maker

ENGINES = ["sqlite", "postgresql", "mariadb"]
NEW = NewTask("q", -9, 5, 10, 3, "key", "f", "{}", '"payload"', '{"a": 1}', 1)


def test_a_new_tasks_record_has_what_was_enqueued_and_nothing_else() -> None:
    record = fresh(7, NEW)
    for name in NewTask._fields:
        assert getattr(record, name) == getattr(NEW, name), name
    others = {name: value for name, value in record._asdict().items() if name not in NewTask._fields and value}
    assert others == {"id": 7, "state": "pending"}


def test_a_maker_assigns_columns_by_name() -> None:
    make = maker(NewTask, ("payload", "queue", "rank", "rank"), {**dict.fromkeys(NewTask._fields), "due": 4, "rank": 7})
    expected = dict.fromkeys(NewTask._fields) | {"payload": "1", "queue": "q", "rank": 2, "due": 4}
    assert make(("1", "q", 1, 2)) == NewTask(**expected)  # type: ignore[arg-type]
    assert type(make(("1", "q", 1, 2))) is NewTask


@pytest.mark.parametrize("engine", ENGINES)
def test_each_list_has_each_column_once(engine: str) -> None:
    sources = queries.sources(engine)
    lists = column_lists(sources)
    for table, columns in TABLES.items():
        assert len(set(columns)) == len(columns)
        assert lists[f"stored_{table}_columns"].replace('"', "").split(", ") == list(columns)
        assert lists[f"stored_{table}_values"].split(", ") == [f":{column}" for column in columns]
    for name, fields in (("task_columns", TaskRecord._fields), ("claim_columns", TaskRecord._fields[:-4])):
        parts = [re.sub(r"\{\{task_(\w+)\}\}|dbtaskqueue_task\.", r"\1", part) for part in lists[name].split(", ")]
        assert [part.strip('"') for part in parts] == list(fields)
    assert TaskRecord._fields[-4:] == NOT_OF_A_CLAIM
    assert set(FOUND) < set(TABLES["task"])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("column", ["options", "meta", "error_type"])
def test_a_column_that_no_query_is_about_is_named_in_no_query_by_hand(engine: str, column: str) -> None:
    """A new column of this kind is declared in records.py, and no query changes."""
    named = [name for name, text in queries.sources(engine).items() if re.search(rf"\b{column}\b", text)]
    known = {
        "error_type": ["task_error_type", "attempt_in_row"],
        "options": ["take_newer_tick", "where_schedule", "options_have"],
    }
    assert named == known.get(column, [])
