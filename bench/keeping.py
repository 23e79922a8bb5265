"""The cost of ``progress``, ``checkpoint`` and ``step`` for a task in a child process."""

from __future__ import annotations

import sqlite3
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row
from .processes import start_child

CALLS, SECONDS, ROUNDS, EACH, STEPS = 100_000, 12, 20, 10, 200
_PATIENCE = 120.0
_COUNT = """
CREATE TABLE bench_write (at REAL NOT NULL);
CREATE TRIGGER bench_inserted AFTER INSERT ON dbtaskqueue_note WHEN new.name = 'progress'
    BEGIN INSERT INTO bench_write VALUES (86400 * julianday()); END;
CREATE TRIGGER bench_updated AFTER UPDATE ON dbtaskqueue_note WHEN new.name = 'progress'
    BEGIN INSERT INTO bench_write VALUES (86400 * julianday()); END;
"""


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for progress, checkpoints and steps."""
    bench.say("progress in a child")
    yield Row(
        "keeping",
        f"{CALLS:,} calls of progress by a task in a child process",
        [result_on_new_file(bench, {"do": "progress", "calls": CALLS}) for _ in range(bench.repeats)],
        "s",
        0.2,
    )
    seconds = bench.some(SECONDS) + 3
    yield Row(
        "keeping",
        "progress reported continuously by a task in a child process: writes to the database",
        [_writes(bench, seconds) for _ in range(bench.repeats)],
        "a second",
        1,
        details=f"counted by a trigger over {seconds} s; the last report is stored with the outcome",
    )
    bench.say("checkpoints and steps in a child")
    found = [_beside_bare(bench, {"do": "checkpoints", "rounds": ROUNDS, "each": EACH}) for _ in range(bench.repeats)]
    ours, bare = [each["ours"] for each in found], [each["bare"] for each in found]
    count = ROUNDS * EACH
    yield Row(
        "keeping",
        "SQLite, checkpoint of 1 KiB against a bare UPDATE that is as durable, synchronous=FULL",
        [b / a for a, b in zip(ours, bare, strict=True)],
        "×",
        0.6,
        at_least=True,
        details=f"{count / statistics.median(ours):,.0f}/s against {count / statistics.median(bare):,.0f}/s,"
        f" {EACH} of each in turn",
    )
    yield step_row("SQLite", [_beside_bare(bench, {"do": "steps", "count": STEPS}) for _ in range(bench.repeats)])


def step_row(engine: str, found: list[dict[str, float]]) -> Row:
    """Return the row for a step. Its function is ``int``, so the step's own overhead is what takes time."""
    ours, bare = (statistics.median(each[name] for each in found) * 1e3 for name in ("ours", "bare"))
    return Row(
        "keeping" if engine == "SQLite" else f"{engine.lower()}.steps",
        f"{engine}, overhead of a step against one bare durable commit: p50",
        [each["ours"] / each["bare"] for each in found],
        "×",
        3,
        details=f"{ours:.2f} ms against {bare:.2f} ms, one of each in turn",
    )


def result_of(url: str, payload: dict[str, object]) -> Any:
    """Return the result of one task in a child process."""
    with TaskQueue(url) as queue, start_child("long_tasks.py", url, 1):
        return queue.enqueue(payload).get_result(_PATIENCE)


def result_on_new_file(bench: Bench, payload: dict[str, object]) -> Any:
    """Return the result of one task in a child process, on a new file."""
    with databases.fresh(bench) as path:
        return result_of(databases.url(path), payload)


def _beside_bare(bench: Bench, payload: dict[str, object]) -> Any:
    with databases.fresh(bench) as other:
        return result_on_new_file(bench, payload | {"file": str(other)})


def _writes(bench: Bench, seconds: int) -> float:
    """Return the writes per second of a task that runs this long, from the first write to the last."""
    with databases.fresh(bench) as path:
        TaskQueue(databases.url(path)).close()
        _run(path, _COUNT)
        result_of(databases.url(path), {"do": "report", "seconds": seconds})
        times = _run(path, "")
    *while_it_ran, _ = times  # stored with the outcome, in one transaction
    return (len(while_it_ran) - 1) / (while_it_ran[-1] - while_it_ran[0])


def _run(path: Path, script: str) -> list[float]:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(script)
        return [at for (at,) in connection.execute("SELECT at FROM bench_write ORDER BY at")]
    finally:
        connection.close()
