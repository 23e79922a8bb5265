"""Plain tasks with this code against the version before it: what a new feature costs those who do not use it.

Both versions run at the same time, each in a process and on a database of its own, and take turns every half second or
so. The source of the earlier version comes from the repository's history.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from . import flows
from .flows import Fresh
from .harness import Bench, Row, rate
from .processes import CHILDREN, next_line, started

BEFORE = "5e26386"
"""The commit of version 0.2.0, without dependencies, schedules and expiry."""
_ROOT = Path(__file__).resolve().parent.parent
_TARGET = 0.97
_ROUNDS = 10
TASKS = {
    "sqlite": {"work": 20_000, "enqueue": 5_000, "enqueue_many": 10_000},
    "sqlite-full": {"work": 20_000, "enqueue": 1_000, "enqueue_many": 10_000},
    "postgresql": {"work": 10_000, "enqueue": 300, "enqueue_many": 10_000},
    "mariadb": {"work": 5_000, "enqueue": 300, "enqueue_many": 5_000},
}
_NAMES = {"work": "worker", "enqueue": "enqueue, one by one", "enqueue_many": "enqueue_many"}


def measure(bench: Bench) -> Iterator[Row]:
    """Yield three rows for NORMAL, and for FULL."""
    for synchronous, sizes in (("NORMAL", "sqlite"), ("FULL", "sqlite-full")):
        fresh = partial(flows.file, bench, synchronous)
        yield from rows(bench, "versions", f"SQLite, synchronous={synchronous}", fresh, TASKS[sizes])


def rows(
    bench: Bench,
    group: str,
    name: str,
    fresh: Fresh,
    tasks: dict[str, int],
    server_cpu: Callable[[], float] = lambda: 0.0,
) -> Iterator[Row]:
    """Yield a row for each kind of work. ``server_cpu`` returns the CPU time of the database server so far."""
    before = _source_of(bench)
    if before is None:
        return
    for verb, count in tasks.items():
        bench.say(f"{name}: {_NAMES[verb]}, this version and {BEFORE}")
        pairs = [_pair(bench, fresh, before, f"{verb} {bench.some(count)}", server_cpu) for _ in range(bench.repeats)]
        rates = [[bench.some(count) / statistics.median(pair[which]["seconds"]) for pair in pairs] for which in (0, 1)]
        cpu = [_ratio(pair, "cpu") for pair in pairs]
        server = [_ratio(pair, "server") for pair in pairs]
        yield Row(
            group,
            f"{name}: {_NAMES[verb]}, plain tasks, this version against {BEFORE} (0.2.0)",
            [_ratio(pair, "seconds") for pair in pairs],
            "×",
            _TARGET,
            at_least=True,
            details=f"{rate(rates[0])} against {rate(rates[1])}; by CPU time"
            f" {_spread(cpu)} ×" + (f", by that of the server {_spread(server)} ×" if any(server) else ""),
        )


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f}…{max(values):.3f})"


Taken = dict[str, list[float]]


def _ratio(pair: tuple[Taken, Taken], what: str) -> float:
    """Return how fast the new version was, compared with the old one: the median of all turns of a pair."""
    new, old = pair[0][what], pair[1][what]
    return statistics.median(old) / statistics.median(new) if all(new) else 0.0


def _pair(
    bench: Bench, fresh: Fresh, before: Path, command: str, server_cpu: Callable[[], float]
) -> tuple[Taken, Taken]:
    """Let both versions run a command in turns: new, old, old, new, and so on. Return what each turn took."""
    with ExitStack() as stack:
        children = [_child(stack, stack.enter_context(fresh()), source) for source in (_ROOT / "src", before)]
        for child in children:
            _run(child, command)  # not measured: the first run prepares statements, and creates the schema
        taken: tuple[Taken, Taken] = ({}, {})
        for turn in range(2 if bench.quick else _ROUNDS):
            for which in ((0, 1), (1, 0))[turn % 2]:
                start = server_cpu()
                answer = _run(children[which], command) | {"server": server_cpu() - start}
                for what, seconds in answer.items():
                    taken[which].setdefault(what, []).append(seconds)
        return taken


def _child(stack: ExitStack, url: str, source: Path) -> Any:
    environment = os.environ | {"PYTHONPATH": str(source)}
    command = sys.executable, CHILDREN / "plain_tasks.py", url
    return stack.enter_context(started(*command, stdin=subprocess.PIPE, env=environment))


def _run(child: Any, command: str) -> dict[str, float]:
    child.stdin.write(f"{command}\n".encode())
    child.stdin.flush()
    answer: dict[str, float] = next_line(child)
    return answer


def _source_of(bench: Bench) -> Path | None:
    """Return the source of the earlier version; None if the history lacks it, as in a shallow clone."""
    directory = bench.cache / f"source-{BEFORE}"
    if not (directory / "src").exists():
        archive = ["git", "-C", str(_ROOT), "archive", "--format=zip", f"{BEFORE}^{{commit}}", "src"]
        done = subprocess.run(archive, capture_output=True)
        if done.returncode:
            bench.say(f"SKIPPED: the repository's history lacks {BEFORE}")
            return None
        zipfile.ZipFile(io.BytesIO(done.stdout)).extractall(directory)
    return directory / "src"
