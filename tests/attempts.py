"""The oracle of the history: the attempts that the database itself has."""

from __future__ import annotations

from collections import Counter

from engines import execute, schema_of

from dbtaskqueue import TaskQueue
from dbtaskqueue._formats import buckets
from dbtaskqueue._store.contract import HistoryRecord

OUTCOMES = ("done", "failed", "abandoned", "cancelled", "lost", "released")


def in_tables(url: str) -> Counter[str]:
    """Return how many attempts have ended so, according to the tables of tasks and attempts, without the library."""
    schema = f"{schema_of(url)}." if url.startswith("postgresql") else ""
    found = Counter(dict(execute(url, f"SELECT outcome, count(*) FROM {schema}dbtaskqueue_attempt GROUP BY outcome")))
    [(done,)] = execute(url, f"SELECT count(*) FROM {schema}dbtaskqueue_task WHERE state = 'done'")
    return found + Counter({"done": done})


def in_history(queue: TaskQueue) -> Counter[str]:
    """Return how many attempts of all queues have ended so, according to the history."""
    return outcomes_of(queue.store.history_totals())


def outcomes_of(rows: list[HistoryRecord]) -> Counter[str]:
    """Return the sums of rows of the history. Their buckets must have the same number of attempts."""
    found = Counter({outcome: sum(getattr(row, outcome) for row in rows) for outcome in OUTCOMES})
    for times in ("run_times", "wait_times"):
        assert sum(sum(buckets.decode(getattr(row, times))) for row in rows) == found.total(), times
    return +found
