"""Lists and searches among 1,000,000 waiting tasks: no page may take longer because of them.

``bench/servers/finding.py`` measures the same on servers.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from dbtaskqueue import Task, TaskQueue

from . import databases
from .backlog import copy_rows
from .harness import Bench, Row

PENDING = 1_000_000
_PRIORITIES = (0, 5)
_ENDED, _RUNNING = 1000, 10
_PAGE, _SEARCH = 20.0, 150.0
"""Milliseconds: the targets of a page that an index serves, and of any other search."""

Ask = Callable[[TaskQueue], object]
_FAILED = {"state": ["failed", "abandoned"]}
PAGES: dict[str, Ask] = {
    "tasks()": lambda queue: queue.tasks(),
    "tasks(state='pending')": lambda queue: queue.tasks(state="pending"),
    "tasks(state='failed')": lambda queue: queue.tasks(state="failed"),
    "tasks(state='done')": lambda queue: queue.tasks(state="done"),
    "find()": lambda queue: queue.find(),
    "find(state='pending')": lambda queue: queue.find(state="pending"),
    "find(state=[failed, abandoned], all_queues=True)": lambda queue: queue.find(all_queues=True, **_FAILED),
    "find(runs='>0s')": lambda queue: queue.find(runs=">0s"),
    "find(id='3-50')": lambda queue: queue.find(id="3-50"),
    "find(sort='line')": lambda queue: queue.find(sort="line"),
    "find(sort='due')": lambda queue: queue.find(sort="due"),
    "find(sort='longest')": lambda queue: queue.find(sort="longest"),
}
"""What an index serves."""
SEARCHES: dict[str, dict[str, Any]] = {
    "function": {"function": "app.*"},
    "key": {"key": "no such key"},
    "schedule": {"schedule": "no such schedule"},
    "worker": {"worker": 99_999},
    "priority": {"priority": ">=9"},
    "attempt": {"attempt": ">=3"},
    "created": {"created": ">30d"},
    "due": {"due": "2h"},
    "started": {"started": "2h"},
    "ended": {"ended": "2h"},
    "error": {"error": "no such error"},
    "payload": {"payload": "no such text"},
    "payload.number": {"payload.number": -1},
    "text": {"text": "no such text"},
    "sort='ended'": {"sort": "ended"},
}
"""What no index serves, with values that match nothing, so that the search goes to its bounds."""


def measure(bench: Bench) -> Iterator[Row]:
    """Yield one row for each list and each filter."""
    with databases.fresh(bench) as path, TaskQueue(databases.url(path)) as queue:
        bench.say(f"making a file with {PENDING:,} waiting tasks")
        held = fill(queue)
        with closing(sqlite3.connect(path)) as connection:
            for model in models_of(queue):
                copy_rows(connection, model, bench.some(PENDING) // len(_PRIORITIES), 1)
            connection.commit()
        yield from rows_of("finding", "SQLite", queue, bench)
        release(held)


def fill(queue: TaskQueue) -> list[Task]:
    """Store some tasks that have run; return some that run."""
    queue.enqueue_many([databases.payload(number) for number in range(_ENDED)], max_attempts=1)
    for task in queue.fetch(_ENDED):
        task.start()
        task.finish() if task.id % 5 else task.fail("timed out")
    queue.enqueue_many([databases.payload(number) for number in range(_RUNNING)])
    running = queue.fetch(_RUNNING)
    for task in running:
        task.start()
    return running


def models_of(queue: TaskQueue) -> list[int]:
    """Return the ids of waiting tasks, of which to make copies."""
    return [queue.enqueue(databases.payload(0), priority=priority, start_in=86_400).id for priority in _PRIORITIES]


def release(held: list[Task]) -> None:
    """End the running tasks."""
    for task in held:
        task.release()


def rows_of(group: str, engine: str, queue: TaskQueue, bench: Bench) -> Iterator[Row]:
    """Measure every list and every filter on a filled queue."""
    number = f"{bench.some(PENDING):,} waiting tasks"
    for name, ask in PAGES.items():
        yield Row(group, f"{engine}, {name} among {number}", _times(ask, queue, bench), "ms", _PAGE)
    for name, filters in SEARCHES.items():

        def search(queue: TaskQueue, filters: dict[str, Any] = filters) -> object:
            return queue.find(**filters)

        what = f"{engine}, one call of find by {name} among {number}"
        scanned = queue.find(**filters).scanned
        yield Row(group, what, _times(search, queue, bench), "ms", _SEARCH, details=f"looked at {scanned:,} tasks")


def _times(ask: Ask, queue: TaskQueue, bench: Bench) -> list[float]:
    """Return the milliseconds of each repeat: the median of five calls."""
    return [statistics.median(_once(ask, queue) for _ in range(5)) for _ in range(bench.repeats)]


def _once(ask: Ask, queue: TaskQueue) -> float:
    started = time.perf_counter()
    ask(queue)
    return (time.perf_counter() - started) * 1000
