"""Enqueueing one by one against bare INSERTs, and threads that share commits against one thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from . import databases
from .harness import Bench, Row, interleave, rate, ratios
from .processes import run_child

TASKS = {"NORMAL": 10_000, "FULL": 3_000}
_OVER_BARE = 0.6
_THREADS = 8
_OVER_ONE_THREAD = 2.0


def measure(bench: Bench) -> Iterator[Row]:
    """Rows for NORMAL, FULL, and threads."""
    for synchronous in ("NORMAL", "FULL"):
        bench.say(f"enqueue against bare INSERTs, synchronous={synchronous}")
        yield _against_bare(bench, synchronous)
    bench.say(f"enqueue in {_THREADS} threads")
    yield _threads(bench)


def produce(path: Path, synchronous: str, tasks: int, *, kind: str = "ours", threads: int = 1) -> float:
    """Tasks a second that a process of its own adds to a file."""
    return float(run_child("producer.py", kind, path, synchronous, tasks, threads))


def _against_bare(bench: Bench, synchronous: str) -> Row:
    def one(kind: str) -> float:
        with databases.fresh(bench) as path:
            return produce(path, synchronous, bench.some(TASKS[synchronous]), kind=kind)

    found = interleave({"ours": lambda: one("ours"), "bare": lambda: one("bare")}, bench.repeats)
    return Row(
        "enqueue",
        f"enqueue one by one against bare INSERTs, synchronous={synchronous}",
        ratios(found["ours"], found["bare"]),
        "×",
        _OVER_BARE,
        at_least=True,
        details=f"{rate(found['ours'])} against {rate(found['bare'])}",
    )


def _threads(bench: Bench) -> Row:
    def some(threads: int) -> float:
        with databases.fresh(bench) as path:
            return produce(path, "FULL", bench.some(TASKS["FULL"]) * (2 if threads > 1 else 1), threads=threads)

    found = interleave({"many": lambda: some(_THREADS), "one": lambda: some(1)}, bench.repeats)
    return Row(
        "enqueue",
        f"{_THREADS} threads that enqueue at once against one, synchronous=FULL",
        ratios(found["many"], found["one"]),
        "×",
        _OVER_ONE_THREAD,
        at_least=True,
        details=f"{rate(found['many'])} against {rate(found['one'])}",
    )
