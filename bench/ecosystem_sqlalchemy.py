"""What a task costs in the transaction of a SQLAlchemy session, against one on the queue's own connection."""

from __future__ import annotations

from collections.abc import Iterator

from . import databases
from .harness import Bench, Row, interleave, rate, ratios
from .processes import run_child

TASKS = {"FULL": 1_000, "NORMAL": 3_000}
_KINDS = "ours", "session", "together", "apart"
_TARGET = 0.7
_TOGETHER_TARGET = 1.0


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row for a task alone, and one for a task beside a row of the application."""
    found = {synchronous: _rates(bench, synchronous) for synchronous in TASKS}
    full, normal = found["FULL"], found["NORMAL"]
    yield Row(
        "ecosystem",
        "enqueue and commit by a SQLAlchemy session, against our own connection",
        ratios(full["session"], full["ours"]),
        "×",
        _TARGET,
        at_least=True,
        details=(
            f"{rate(full['session'])} against {rate(full['ours'])};"
            f" with synchronous=NORMAL {rate(normal['session'])} against {rate(normal['ours'])}"
        ),
    )
    yield Row(
        "ecosystem",
        "a row and a task in one transaction of a session, against the row there and the task on our own connection",
        ratios(full["together"], full["apart"]),
        "×",
        _TOGETHER_TARGET,
        at_least=True,
        details=(
            f"{rate(full['together'])} against {rate(full['apart'])};"
            f" with synchronous=NORMAL {rate(normal['together'])} against {rate(normal['apart'])}"
        ),
    )


def _rates(bench: Bench, synchronous: str) -> dict[str, list[float]]:
    """Return the tasks per second of each kind of transaction."""
    bench.say(f"enqueue by a session of SQLAlchemy, synchronous={synchronous}")
    tasks = bench.some(TASKS[synchronous])

    def once(kind: str) -> float:
        with databases.fresh(bench) as path:
            return float(run_child("session_producer.py", kind, databases.url(path, synchronous), tasks))

    return interleave({kind: lambda kind=kind: once(kind) for kind in _KINDS}, bench.repeats)  # type: ignore[misc]
