"""``python -m bench.servers.scaling`` prints figures for docs/scaling.md, without targets.

It measures the cost of a task that is claimed and ended alone, as all tasks above 10 ms are; up to how many workers the
throughput grows; the load of workers that wait or run long tasks; and the size of a task.
"""

from __future__ import annotations

import contextlib
import time

from dbtaskqueue import TaskQueue

from ..processes import start_child
from .engines import MARIADB, POSTGRESQL, Engine, database_of, fill, stop_all
from .throughput import together

_TASKS = 3_000
_PROCESSES = 1, 2, 4, 8, 16
_WORKERS = 20
_SECONDS = 20.0
_STORED = 100_000
_CROWDS = 50, 200, 1_000
_LOOKS = 2_000


def main() -> None:
    """Print a line for each figure."""
    try:
        for engine in (POSTGRESQL, MARIADB):
            for processes in _PROCESSES:
                _one_by_one(engine, processes)
            _weight(engine)
            _workers(engine)
        _check_for_workers()
    finally:
        stop_all()


def _one_by_one(engine: Engine, processes: int) -> None:
    tasks = _TASKS * min(processes, 4)
    with engine.fresh() as url:
        fill(url, tasks)
        engine.checkpoint()
        before = engine.cpu_seconds()
        speed = together(tasks, [["drain.py", url, "{start}", 1]] * processes)
        cost = (engine.cpu_seconds() - before) / tasks
    print(
        f"{engine.name}: {processes} workers, one by one: {speed:,.0f} tasks/s, {cost * 1e6:.0f} µs of the server each"
    )


def _check_for_workers() -> None:
    """Measure the query for the other workers, which each worker runs once a second."""
    row = "'some-host-name', n, '01234567-0123-4567-89ab-0123456789ab', '4026531836', 123456, 30, 1"
    columns = "host, pid, boot, namespace, started, lease, created_at"
    for workers in _CROWDS:
        with POSTGRESQL.fresh() as url, TaskQueue(url) as queue:
            insert = f"INSERT INTO dbtaskqueue.dbtaskqueue_worker ({columns}) SELECT {row}"
            POSTGRESQL.run(f"{insert} FROM generate_series(1, {workers}) AS n", database=database_of(url))
            queue.store.workers()
            before = POSTGRESQL.cpu_seconds()
            for _ in range(_LOOKS):
                queue.store.workers()
            cost = (POSTGRESQL.cpu_seconds() - before) / _LOOKS
        print(f"PostgreSQL: the check of {workers} workers: {cost * 1e6:.0f} µs of the server")


def _weight(engine: Engine) -> None:
    with engine.fresh() as url:
        TaskQueue(url).close()
        empty = engine.size(database_of(url))
        fill(url, _STORED)
        engine.rewrite(database_of(url))
        waiting = engine.size(database_of(url)) - empty
        together(_STORED, [["drain.py", url, "{start}"]])
        engine.rewrite(database_of(url))
        finished = engine.size(database_of(url)) - empty
    print(
        f"{engine.name}: {waiting / _STORED:.0f} bytes for a waiting task, {finished / _STORED:.0f} for a finished one"
    )


def _workers(engine: Engine) -> None:
    with engine.fresh() as url, contextlib.ExitStack() as stack:
        TaskQueue(url).close()
        idle = _percent(engine)
        for _ in range(_WORKERS):
            stack.enter_context(start_child("sleeping_worker.py", url, 10))
        time.sleep(100)
        waiting = _percent(engine)
        with TaskQueue(url) as queue:
            queue.enqueue_many([None] * _WORKERS * 10)
        time.sleep(10)
        running = _percent(engine)
    print(
        f"{engine.name}: {_WORKERS} workers that wait take {waiting - idle:.2f} % of a core of the server,"
        f" {_WORKERS} with 10 long tasks each {running - idle:.2f} %"
    )


def _percent(engine: Engine) -> float:
    before, started = engine.cpu_seconds(), time.monotonic()
    time.sleep(_SECONDS)
    return 100 * (engine.cpu_seconds() - before) / (time.monotonic() - started)


if __name__ == "__main__":
    main()
