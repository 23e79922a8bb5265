"""SQLite's plan for every named query: none reads or sorts a whole table, with or without statistics.

SQLite 3.46 reversed a join that 3.40 had planned well. It also planned a claim as a scan if ANALYZE had run while no
task was waiting. So the plans are checked on the installed SQLite, without statistics and with those of an idle, a
waiting and a busy database.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

import pytest

from dbtaskqueue._store import queries
from dbtaskqueue._store.sqlite.store import SqliteStore
from dbtaskqueue._store.sqlite.transaction import SQL

TASKS = 10_000
STATES = {
    "no statistics": None,
    "idle": ["done"],
    "waiting": ["pending"],
    "busy": [*["pending"] * 8, "failed", "reserved", "running", *["done"] * 20, "cancelled", "abandoned"],
}
"""The rows in the database when ANALYZE ran."""

SMALL = {
    *("dbtaskqueue_worker", "dbtaskqueue_queue", "dbtaskqueue_schema", "dbtaskqueue_pruned", "sqlite_master"),
    *("ranks", "waiting_in", "blocked_in_queue", "ended_in", "scheduled_in"),  # one row for each priority or queue
    *("newest", "latest", "found", "longest", "step"),  # inner queries with a LIMIT
    *("json_each", "ended"),  # a list from the caller
}
"""Any query may scan these, as they have few rows."""

ALLOWED = {
    ("all_history", "scan dbtaskqueue_history"): "adds up all rows, whose number is bounded, in the background",
    (
        "action_to_keep",
        "scan dbtaskqueue_action",
    ): "has a bounded OFFSET, in the order of the primary key, in the background",
    ("old_actions", "scan dbtaskqueue_action"): "has a LIMIT, in the order of the primary key",
    ("queue_counts", "ended (queue=? AND state=?)"): "counts failed tasks",
    ("queue_counts", "scan dbtaskqueue_blocked"): "counts blocked tasks, once a minute",
    ("queue_counts", "scan dbtaskqueue_claimable"): "counts waiting tasks, once a minute",
    ("queue_counts", "sort"): "groups held tasks, which are few per worker",
    ("retentions", "scan dbtaskqueue_retention"): "has a row for each queue at most",
    ("claimable", "claimable (queue=?)"): "finds the lowest rank with one seek",
    ("count_claimable", "claimable (queue=?)"): "counts waiting tasks",
    ("count_ended", "ended (queue=? AND state=?)"): "counts ended tasks",
    ("count_held", "sort"): "groups held tasks, which are few per worker",
    ("done_attempts", "ended (queue=? AND state=?)"): "has a LIMIT, in the order of the index",
    ("export_schedule", "scan sqlite_autoindex_dbtaskqueue_schedule_1"): "copies all schedules",
    ("export_tick", "scan dbtaskqueue_tick"): "copies all ticks",
    ("fix_due_after_clock_change", "scan dbtaskqueue_claimable"): "runs only after the clock was set back",
    (
        "fix_due_after_clock_change",
        "claimable (ANY(queue) AND ANY(rank) AND due>?)",
    ): "runs only after the clock was set back",
    ("final_counts", "ended (queue=? AND state=?)"): "counts ended tasks",
    ("held_ids", "sort"): "sorts held tasks, which are few per worker",
    ("is_left", "claimable (queue=?)"): "ends at the first row",
    ("more_wait", "claimable (queue=?)"): "has a LIMIT",
    ("newest", "scan dbtaskqueue_task"): "has LIMIT 1",
    ("next_due", "claimable (queue=?)"): "finds the lowest rank with one seek",
    ("next_functions", "claimable (queue=?)"): "has a LIMIT, in the order of the index",
    ("open_attempts", "scan dbtaskqueue_attempt"): "has a LIMIT, in the order of the primary key",
    ("misplaced_schedules", "scan dbtaskqueue_next_tick"): "runs once when a worker starts, over all schedules",
    ("outlook", "scan dbtaskqueue_next_tick"): "finds the first tick with one seek",
    ("outlook", "scan dbtaskqueue_task"): "finds the newest task with LIMIT 1",
    ("schedules", "scan sqlite_autoindex_dbtaskqueue_schedule_1"): "lists all schedules",
    ("overlooked", "scan dbtaskqueue_edge_open"): "runs every five minutes, over open edges only",
    ("past_attempts", "ended (queue=? AND state=?)"): "has a LIMIT, in the order of the index",
    ("pending_ids", "claimable (queue=?)"): "runs only if few tasks are waiting",
    ("pending_ids", "sort"): "runs only if few tasks are waiting",
    ("purgeable", "claimable (queue=?)"): "has a LIMIT",
    ("purgeable_held", "sort"): "sorts held tasks, which are few per worker",
    ("queues", "scan sqlite_autoindex_dbtaskqueue_schedule_1"): "reads the names of all schedules",
    ("queues", "sort"): "sorts one row for each queue",
    ("longest_running", "sort"): "sorts held tasks, which are few per worker, and the chosen ones",
    ("undecided", "scan dbtaskqueue_undecided"): "has a LIMIT, in the order of the primary key",
    ("waiting_since", "claimable (queue=?)"): "finds the lowest rank with one seek",
}
"""Reasons for the steps that need one: (query, step) → why it is bounded or rare."""

SCAN = re.compile(r"SCAN (?!CONSTANT ROW|\d+ CONSTANT ROWS|\d+-ROW VALUES)(\w+)(?: USING (?:COVERING )?INDEX (\w+))?")
WIDE = re.compile(r"INDEX dbtaskqueue_((?:claimable|ended) \((?:queue=\?(?: AND state=\?)?|ANY.*)\))")


@pytest.fixture(scope="module", params=STATES)
def analyzed(request: pytest.FixtureRequest) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for script in queries.migrations("sqlite", SqliteStore.schema_version):
        for statement in script:
            connection.execute(statement)
    if (states := STATES[request.param]) is not None:
        _fill(connection, states)
        connection.execute("ANALYZE")
    yield connection
    connection.close()


def _fill(connection: sqlite3.Connection, states: list[str]) -> None:
    rows = []
    for id in range(1, TASKS + 1):
        state = states[id % len(states)]
        finished = id if state in ("done", "cancelled", "abandoned") else None
        worker = id % 5 if state in ("reserved", "running") else None
        rows.append((id, f"queue {id % 3}", state, id % 4, id, id, worker, id, finished, str(id) if id % 50 else None))
    columns = 'id, queue, state, rank, due, due_set_at, worker, created_at, finished_at, "key"'
    marks = ", ".join("?" * len(rows[0]))
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO dbtaskqueue_task ({columns}) VALUES ({marks})", rows)
    some = "FROM dbtaskqueue_task WHERE id % 3 = 0"
    connection.execute(
        f"INSERT INTO dbtaskqueue_attempt (task, token, number, outcome) SELECT id, 1, 1, 'failed' {some}"
    )
    connection.execute(f"INSERT INTO dbtaskqueue_note (task, token, name, value) SELECT id, 1, 'output', 'x' {some}")
    connection.execute(f"INSERT INTO dbtaskqueue_large (task, name, value) SELECT id, 'payload', 'x' {some}")
    connection.execute("COMMIT")


def _steps(connection: sqlite3.Connection, text: str) -> Iterator[str]:
    """Return the steps of a statement's plan that need a reason: scans and sorts."""
    text = queries.repeated(text, 2)
    values = {name: "[1, 2]" if name == "ids" else 1 for name in re.findall(r"(?<![:\w]):([a-z]\w*)", text)}
    for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {text}", values):
        if "AUTOMATIC" in step:
            yield step
        elif "TEMP B-TREE" in step:
            yield "sort"
        elif (wide := WIDE.search(step)) is not None:
            yield wide[1]
        elif (scan := SCAN.match(step)) is not None and scan[1] not in SMALL and scan[2] != "dbtaskqueue_held":
            yield f"scan {scan[2] or scan[1]}"


STATEMENTS = {
    name: text for name, text in SQL.items() if text.startswith(("SELECT", "WITH", "INSERT", "UPDATE", "DELETE"))
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_no_query_scans_or_sorts_without_a_reason(analyzed: sqlite3.Connection, name: str) -> None:
    unexplained = {step for step in _steps(analyzed, STATEMENTS[name]) if (name, step) not in ALLOWED}
    assert unexplained == set()


def test_every_listed_reason_belongs_to_a_query() -> None:
    assert {name for name, _ in ALLOWED} <= set(STATEMENTS)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("SELECT * FROM dbtaskqueue_task", {"scan dbtaskqueue_task"}),
        ("SELECT count(*) FROM dbtaskqueue_attempt AS past", {"scan"}),
        ("SELECT id FROM dbtaskqueue_task ORDER BY due LIMIT 1", {"scan", "sort"}),
        ("SELECT id FROM dbtaskqueue_task NOT INDEXED WHERE queue = 'x'", {"scan dbtaskqueue_task"}),
        ("SELECT id FROM dbtaskqueue_task WHERE id = 5", set()),
    ],
)
def test_a_scan_and_a_sort_are_noticed(analyzed: sqlite3.Connection, text: str, steps: set[str]) -> None:
    found = set(_steps(analyzed, text))
    assert all(any(each.startswith(step) for each in found) for step in steps)
    assert bool(found) == bool(steps)
