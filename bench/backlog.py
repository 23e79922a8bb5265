"""A file with many finished and many future tasks against an empty one: what is not due must cost nothing.

The file is made once and cached. Its rows are copies, by SQL, of rows that the queue itself made, with other ids, times
and payloads. Each measurement adds its own tasks.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path

from dbtaskqueue import TaskQueue, Worker

from . import databases, enqueue
from .harness import Bench, Row, interleave, rate, ratios
from .processes import run_child

FINISHED = 1_000_000
FUTURE = 100_000
_PRIORITIES = (-10, -1, 0, 1, 10)
_DAY = 86_400
_TASKS = 10_000
_TARGET = 0.8
_COPY = """
WITH RECURSIVE number(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM number WHERE value < :copies)
INSERT INTO dbtaskqueue_task ({columns})
SELECT {values} FROM number CROSS JOIN (SELECT * FROM dbtaskqueue_task WHERE id = :model) AS model
"""
_CHANGED = {
    "id": "(SELECT max(id) FROM dbtaskqueue_task) + number.value",
    "due": "model.due + number.value * :step",
    "payload": "json_set(model.payload, '$.number', number.value, '$.url', 'http://example.com/' || number.value)",
}


def measure(bench: Bench) -> Iterator[Row]:
    """Yield one row for the worker, and one for enqueue at each durability."""
    big = big_file(bench)
    bench.say("a worker on the big file and on an empty one")
    yield _row("worker", bench, big, lambda path: _work(bench, path))
    bench.say("enqueue into the big file and into an empty one")
    yield _row("enqueue", bench, big, lambda path: enqueue.produce(path, "NORMAL", bench.some(_TASKS)))


def _row(what, bench, big, run) -> Row:
    def empty() -> float:
        with databases.fresh(bench) as path:
            return run(path)

    found = interleave({"big": lambda: run(big), "empty": empty}, bench.repeats)
    return Row(
        "backlog",
        f"{what} with {FINISHED:,} finished and {FUTURE:,} future tasks against an empty file",
        ratios(found["big"], found["empty"]),
        "×",
        _TARGET,
        at_least=True,
        details=f"{rate(found['big'])} against {rate(found['empty'])}, synchronous=NORMAL",
    )


def _work(bench: Bench, path: Path) -> float:
    tasks = bench.some(_TASKS)
    with TaskQueue(databases.url(path, "NORMAL")) as queue:
        _run_due(queue)  # what the last measurement has left
        queue.enqueue_many(databases.payload(number) for number in range(tasks))
    return float(run_child("worker.py", databases.url(path, "NORMAL"), tasks))


def _run_due(queue: TaskQueue) -> None:
    Worker(queue).run(lambda payload: {"status": "OK", "number": payload["number"]}, burst=True)


def big_file(bench: Bench) -> Path:
    """Return the cached file; make it again if the schema has changed."""
    path = bench.cache / f"backlog-{schema()}.sqlite"
    if path.exists():
        return path
    for old in bench.cache.glob("backlog-*.sqlite"):
        databases.remove(old)
    bench.say(f"making a file with {FINISHED:,} finished and {FUTURE:,} future tasks, once")
    unfinished = path.with_suffix(".unfinished")
    databases.remove(unfinished)
    _make(unfinished)
    unfinished.rename(path)
    return path


def schema() -> str:
    directory = resources.files("dbtaskqueue") / "_store" / "sql" / "migrations" / "sqlite"
    texts = sorted((file.name, file.read_bytes()) for file in directory.iterdir())
    return hashlib.sha256(repr(texts).encode()).hexdigest()[:12]


def _make(path: Path) -> None:
    with TaskQueue(databases.url(path, "NORMAL")) as queue:
        done = queue.enqueue(databases.payload(0)).id
        _run_due(queue)
        futures = [queue.enqueue(databases.payload(0), priority=priority, start_in=_DAY).id for priority in _PRIORITIES]
    with closing(sqlite3.connect(path)) as connection:
        copy_rows(connection, done, FINISHED - 1, 0)
        for model in futures:
            copies = FUTURE // len(futures) - 1
            copy_rows(connection, model, copies, 30 * _DAY * 1_000_000 // copies)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _check(path)


def copy_rows(connection: sqlite3.Connection, model: int, copies: int, step: int) -> None:
    """Copy a task this many times, each due ``step`` microseconds after the previous one."""
    columns = [row[1] for row in connection.execute("PRAGMA table_info(dbtaskqueue_task)")]
    values = ", ".join(_CHANGED.get(column, f"model.{column}") for column in columns)
    statement = _COPY.format(columns=", ".join(columns), values=values)
    connection.execute(statement, {"copies": copies, "model": model, "step": step})


def _check(path: Path) -> None:
    """Check that the queue counts the copied rows as its own."""
    with TaskQueue(databases.url(path)) as queue:
        started = time.monotonic()
        stats = queue.stats()
        assert (stats.done, stats.pending, stats.oldest_due) == (FINISHED, FUTURE, None), stats
        assert time.monotonic() - started < 30
