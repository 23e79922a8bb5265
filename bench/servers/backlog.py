"""A database with many finished and many future tasks against an empty one: what is not due must cost nothing.

It is made once in each run. Its rows are copies, by SQL, of rows that the queue itself made, with other ids, times and
payloads. Each measurement adds its own tasks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from dbtaskqueue import TaskQueue, Worker

from .. import databases
from ..harness import Bench, Row, interleave, rate, ratios
from ..processes import run_child
from .engines import Engine, database_of

FINISHED = 1_000_000
FUTURE = 100_000
_PRIORITIES = (-10, -1, 0, 1, 10)
_DAY = 86_400
_TASKS = 10_000
_ONE_BY_ONE = 3_000
_TARGET = 0.8


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield one row for the worker, and one for enqueue."""
    finished, future = bench.some(FINISHED), bench.some(FUTURE)
    with engine.fresh() as big:
        bench.say(f"{engine.name}: making a database with {finished:,} finished and {future:,} future tasks")
        _make(engine, big, finished, future)

        def row(what: str, run: Callable[[str], float]) -> Row:
            bench.say(f"{engine.name}: {what} on the big database and on an empty one")

            def empty() -> float:
                with engine.fresh() as url:
                    return run(url)

            found = interleave({"big": lambda: run(big), "empty": empty}, bench.repeats)
            return Row(
                f"{engine.name.lower()}.backlog",
                f"{engine.name}, {what} with {finished:,} finished and {future:,} future tasks against an empty schema",
                ratios(found["big"], found["empty"]),
                "×",
                _TARGET,
                at_least=True,
                details=f"{rate(found['big'])} against {rate(found['empty'])}",
            )

        yield row("worker", lambda url: _work(bench, engine, url))
        yield row("enqueue one by one", lambda url: _enqueue(bench, engine, url))


def _work(bench: Bench, engine: Engine, url: str) -> float:
    tasks = bench.some(_TASKS)
    with TaskQueue(url) as queue:
        _run_due(queue)  # what the last measurement has left
        queue.enqueue_many(databases.payload(number) for number in range(tasks))
    engine.checkpoint()
    return float(run_child("worker.py", url, tasks))


def _enqueue(bench: Bench, engine: Engine, url: str) -> float:
    TaskQueue(url).close()
    engine.checkpoint()
    return float(run_child("one_by_one.py", url, bench.some(_ONE_BY_ONE)))


def _run_due(queue: TaskQueue) -> None:
    Worker(queue).run(lambda payload: {"status": "OK", "number": payload["number"]}, burst=True)


def _make(engine: Engine, url: str, finished: int, future: int) -> None:
    with TaskQueue(url) as queue:
        done = queue.enqueue(databases.payload(0)).id
        _run_due(queue)
        futures = [queue.enqueue(databases.payload(0), priority=priority, start_in=_DAY).id for priority in _PRIORITIES]
    engine.multiply(database_of(url), done, finished - 1, 0)
    for model in futures:
        copies = future // len(futures) - 1
        engine.multiply(database_of(url), model, copies, 30 * _DAY * 1_000_000 // copies)
    with TaskQueue(url) as queue:  # the queue must count the copied rows as its own
        started = time.monotonic()
        stats = queue.stats()
        assert (stats.done, stats.pending, stats.oldest_due) == (finished, future, None), stats
        assert time.monotonic() - started < 30
