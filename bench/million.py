"""A database with a million tasks of many queues, functions and states, for what operators see.

Its rows are copies, by SQL, of rows that the queue itself made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from dbtaskqueue import TaskQueue, Worker

from . import backlog, databases
from .harness import Bench

TASKS = 1_000_000
QUEUES = 20
_SHARES = {"pending": 0.3, "done": 0.5, "failed": 0.05, "abandoned": 0.1, "cancelled": 0.05}
_LATER = 86_400
Multiply = Callable[[int, int, int], None]
"""Copies a task so many times, each due so many microseconds after the previous one."""
Run = Callable[[str], object]
"""Runs a statement."""
_COPY_ATTEMPTS = """
INSERT INTO {schema}dbtaskqueue_attempt
       (task, token, number, worker, started_at, finished_at, outcome, error, error_type)
SELECT task.id, past.token, past.number, past.worker, past.started_at, past.finished_at, past.outcome, past.error,
       past.error_type
  FROM {schema}dbtaskqueue_task AS model
  JOIN {schema}dbtaskqueue_attempt AS past ON past.task = model.id
  JOIN {schema}dbtaskqueue_task AS task ON task.queue = model.queue AND task.state = model.state AND task.id > {models}
 WHERE model.id <= {models}
"""


def fill(url: str, tasks: int, multiply: Multiply, run: Run, schema: str = "") -> None:
    """Fill a new database with about this many tasks."""
    models = _models(url)
    for (_, state), id in models.items():
        copies = int(tasks * _SHARES[state] / QUEUES) - 1
        if copies > 0:
            multiply(id, copies, 1000)
    run(_COPY_ATTEMPTS.format(schema=schema, models=max(models.values())))


def _models(url: str) -> dict[tuple[str, str], int]:
    """Store a task of each queue in each state; return their ids."""
    found = {}
    with TaskQueue(url) as first:
        for number in range(QUEUES):
            queue = first.lane(f"queue-{number}")
            work = queue.task(name=f"app.work.function_{number}")(_work)
            for state in _SHARES:
                options = {"max_attempts": 1 if state == "abandoned" else 10}
                if state in ("pending", "cancelled"):
                    options["start_in"] = _LATER
                found[queue.name, state] = queue.enqueue(work.using(**options).bind(state)).id
            queue.cancel(found[queue.name, "cancelled"])
        Worker(first, queues=["queue-*"], executor="thread").run(burst=True)
    return found


def _work(how: str) -> str:
    if how != "done":
        raise TimeoutError(f"timed out after 30 s: {how}")
    return how


def sqlite_file(bench: Bench) -> Path:
    """Return the cached SQLite file, which must not be changed; make it again if the schema has changed."""
    path = bench.cache / f"million-{backlog.schema()}.sqlite"
    if path.exists():
        return path
    for old in bench.cache.glob("million-*.sqlite"):
        databases.remove(old)
    bench.say(f"making a file with {TASKS:,} tasks, once")
    unfinished = path.with_suffix(".unfinished")
    databases.remove(unfinished)

    def multiply(model: int, copies: int, step: int) -> None:
        with closing(sqlite3.connect(unfinished)) as connection:
            backlog.copy_rows(connection, model, copies, step)
            connection.commit()

    def run(statement: str) -> None:
        with closing(sqlite3.connect(unfinished)) as connection:
            connection.execute(statement)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    fill(databases.url(unfinished, "NORMAL"), TASKS, multiply, run)
    unfinished.rename(path)
    return path
