"""Workers that run no-op tasks: ours against pgqueuer, and against loops written by hand."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from ..harness import Bench, Row, interleave, rate, ratios
from ..processes import next_line, run_child, start_child
from .engines import MARIADB, POSTGRESQL, Engine, Postgresql, fill

TASKS = 50_000
"""Tasks for each worker; enough that the time to shut down does not matter."""
BATCH = 100
_OVER_PGQUEUER = 1.5
_OVER_BARE_PSYCOPG = 0.6
_OVER_BARE_PYMYSQL = 0.5
_START_UP = 2.0
"""Seconds until all processes are ready to start."""


def measure(bench: Bench, engine: Engine) -> Iterator[Row]:
    """Yield rows for one worker and for several."""
    if isinstance(engine, Postgresql):
        yield from _on_postgresql(bench)
    else:
        yield from _on_mariadb(bench)


def _on_postgresql(bench: Bench) -> Iterator[Row]:
    for workers in (1, 2):
        bench.say(f"PostgreSQL: throughput of {workers} worker(s)")
        tasks = bench.some(TASKS) * workers
        measures: dict[str, Callable[[], float]] = {"ours": partial(_ours, tasks, workers)}
        if workers == 1:
            measures["bare"] = partial(_bare_psycopg, tasks)
        if not bench.rivals.why_not:
            for driver in ("asyncpg", "asyncpg-pool"):
                measures[driver] = partial(_pgqueuer, bench, tasks, workers, driver)
        found = interleave(measures, bench.repeats)
        if not bench.rivals.why_not:
            driver = max(("asyncpg", "asyncpg-pool"), key=lambda name: statistics.median(found[name]))
            yield Row(
                "postgresql.throughput",
                f"PostgreSQL, {workers} worker{'s' * (workers > 1)} against pgqueuer, batch size 200",
                ratios(found["ours"], found[driver]),
                "×",
                _OVER_PGQUEUER,
                at_least=True,
                details=f"{rate(found['ours'])} against {rate(found[driver])}, its fastest driver ({driver})",
            )
        if workers == 1:
            yield Row(
                "postgresql.throughput",
                "PostgreSQL, 1 worker against a bare psycopg loop that ends and claims 100 in one statement",
                ratios(found["ours"], found["bare"]),
                "×",
                _OVER_BARE_PSYCOPG,
                at_least=True,
                details=f"{rate(found['ours'])} against {rate(found['bare'])}",
            )


def _ours(tasks: int, workers: int) -> float:
    with POSTGRESQL.filled(("ours", tasks), lambda url: fill(url, tasks)) as url:
        return together(tasks, [["drain.py", url, "{start}"]] * workers)


def _bare_psycopg(tasks: int) -> float:
    with POSTGRESQL.filled(("bare", tasks), lambda url: run_child("bare_postgresql.py", "fill", tasks, url)) as url:
        return together(tasks, [["bare_postgresql.py", "drain", "{start}", url]])


def _pgqueuer(bench: Bench, tasks: int, workers: int, driver: str) -> float:
    python = bench.rivals.python

    def fill_it(url: str) -> None:
        run_child("pgqueuer_worker.py", "fill", tasks, "asyncpg", url, python=python)

    with POSTGRESQL.filled(("pgqueuer", tasks), fill_it) as url:
        return together(tasks, [["pgqueuer_worker.py", "drain", "{start}", driver, url]] * workers, python=python)


def _on_mariadb(bench: Bench) -> Iterator[Row]:
    for workers in (1, 4):
        bench.say(f"MariaDB: throughput of {workers} worker(s)")
        tasks = bench.some(TASKS) * (2 if workers > 1 else 1)
        found = interleave(
            {"ours": partial(_ours_on_mariadb, tasks, workers), "bare": partial(_bare_pymysql, tasks, workers)},
            bench.repeats,
        )
        yield Row(
            "mariadb.throughput",
            f"MariaDB, {workers} worker{'s' * (workers > 1)} against as many bare PyMySQL loops, {BATCH} at a time",
            ratios(found["ours"], found["bare"]),
            "×",
            _OVER_BARE_PYMYSQL,
            at_least=True,
            details=f"{rate(found['ours'])} against {rate(found['bare'])}",
        )


def _ours_on_mariadb(tasks: int, workers: int) -> float:
    with MARIADB.fresh() as url:
        fill(url, tasks)
        return together(tasks, [["drain.py", url, "{start}", BATCH]] * workers)


def _bare_pymysql(tasks: int, workers: int) -> float:
    with MARIADB.fresh() as url:
        run_child("bare_mariadb.py", "fill", tasks, url)
        return together(tasks, [["bare_mariadb.py", "drain", "{start}", url]] * workers)


def together(tasks: int, commands: list[list[object]], python: str | None = None) -> float:
    """Return the tasks per second of children that start at the same time; check that they have run all tasks."""
    start = time.monotonic() + _START_UP
    with contextlib.ExitStack() as stack:
        processes = []
        for script, *arguments in commands:
            words = [start if argument == "{start}" else argument for argument in arguments]
            processes.append(stack.enter_context(start_child(str(script), *words, python=python)))
        answers: list[dict[str, Any]] = [next_line(process) for process in processes]
    assert sum(answer["tasks"] for answer in answers) == tasks, answers
    busy = [answer for answer in answers if answer["tasks"]]
    return tasks / (max(answer["ended"] for answer in busy) - min(answer["started"] for answer in busy))
