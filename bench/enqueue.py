"""Enqueue one by one, against bare INSERTs and huey; and in threads that share commits, against one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import databases
from .harness import Bench, Row, interleave, rate, ratios
from .processes import run_child

TASKS = {"NORMAL": 10_000, "FULL": 3_000}
_OVER_BARE = {"NORMAL": 0.5, "FULL": 0.65}
_OVER_HUEY = {"NORMAL": 0.9, "FULL": 1.0}
_THREADS = 8
_OVER_ONE_THREAD = 2.0


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for NORMAL, FULL, and threads."""
    for synchronous in ("NORMAL", "FULL"):
        bench.say(f"enqueue one by one, synchronous={synchronous}")
        yield from _one_by_one(bench, synchronous)
    bench.say(f"enqueue in {_THREADS} threads")
    yield _threads(bench)


def produce(path: Path, synchronous: str, tasks: int, *, kind: str = "ours", threads: int = 1) -> float:
    """Return the tasks per second that a separate process adds to a file."""
    return float(run_child("producer.py", kind, path, synchronous, tasks, threads))


def _one_by_one(bench: Bench, synchronous: str) -> Iterator[Row]:
    tasks = bench.some(TASKS[synchronous])

    def one(kind: str) -> float:
        with databases.fresh(bench) as path:
            return produce(path, synchronous, tasks, kind=kind)

    def huey() -> float:
        with databases.fresh(bench) as path:
            environment = databases.huey_environment(path, synchronous, tasks)
            return float(run_child("huey_fill.py", python=bench.rivals.python, environment=environment))

    measures = {"ours": lambda: one("ours"), "bare": lambda: one("bare")}
    if not bench.rivals.why_not:
        measures["huey"] = huey
    found = interleave(measures, bench.repeats)
    others = {"bare": ("bare INSERTs", _OVER_BARE), "huey": ("huey's enqueue", _OVER_HUEY)}
    for other, (name, targets) in others.items():
        if other in found:
            yield Row(
                "enqueue",
                f"enqueue one by one against {name}, synchronous={synchronous}",
                ratios(found["ours"], found[other]),
                "×",
                targets[synchronous],
                at_least=True,
                details=f"{rate(found['ours'])} against {rate(found[other])}",
            )


def _threads(bench: Bench) -> Row:
    def some(threads: int) -> float:
        with databases.fresh(bench) as path:
            return produce(path, "FULL", bench.some(TASKS["FULL"]) * (2 if threads > 1 else 1), threads=threads)

    found = interleave({"many": lambda: some(_THREADS), "one": lambda: some(1)}, bench.repeats)
    return Row(
        "enqueue",
        f"{_THREADS} threads that enqueue at the same time against one, synchronous=FULL",
        ratios(found["many"], found["one"]),
        "×",
        _OVER_ONE_THREAD,
        at_least=True,
        details=f"{rate(found['many'])} against {rate(found['one'])}",
    )
