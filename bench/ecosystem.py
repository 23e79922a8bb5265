"""Integrations: executors, the time to import the package, and what other modules measure of each integration."""

from __future__ import annotations

import importlib
import io
import os
import statistics
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from . import databases
from .harness import Bench, Row, interleave
from .processes import run_child

BEFORE = "369ce4b"
"""The commit of version 0.4.0, without integrations."""
PARTS = "sqlalchemy", "aio", "typed", "extension"
"""Modules ``ecosystem_NAME`` with a function ``measure``."""
CALLS = 10_000
WORKERS = 2
IMPORTS = 15
_ROOT = Path(__file__).resolve().parent.parent
_IMPORT = """
import time
start = time.process_time()
import dbtaskqueue
print(time.process_time() - start)
"""


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for executors and the import, then those of the other modules."""
    yield from _executors(bench)
    yield from _import_time(bench)
    for part in PARTS:
        try:
            module = importlib.import_module(f"bench.ecosystem_{part}")
        except ImportError as missing:
            bench.say(f"SKIPPED: {part}: {missing}")
            continue
        yield from module.measure(bench)


def _executors(bench: Bench) -> Iterator[Row]:
    calls = bench.some(CALLS)
    bench.say(f"map of {calls:,} calls that do nothing, in processes")

    def once(kind: str) -> float:
        with databases.fresh(bench) as path:
            return float(run_child("executor_map.py", kind, databases.url(path, "FULL"), calls, WORKERS))

    found = interleave({kind: lambda kind=kind: once(kind) for kind in ("ours", "pool")}, bench.repeats)  # type: ignore[misc]
    ours, pool = (statistics.median(found[kind]) for kind in ("ours", "pool"))
    yield Row(
        "ecosystem",
        f"QueueExecutor.map of {calls:,} calls that do nothing, in processes, against ProcessPoolExecutor",
        [a / b for a, b in zip(found["ours"], found["pool"], strict=True)],
        "×",
        10,
        details=f"{ours:.2f} s against {pool:.2f} s with {WORKERS} workers, both started before; synchronous=FULL",
    )


def _import_time(bench: Bench) -> Iterator[Row]:
    before = _source_of(bench)
    if before is None:
        return
    bench.say(f"import dbtaskqueue, this version and {BEFORE}")
    sources = {"now": _ROOT / "src", "before": before}

    def once(which: str) -> float:
        """Return the least of several CPU times, since other programs can only add to it."""
        return min(_import(sources[which]) for _ in range(IMPORTS))

    found = interleave({which: lambda which=which: once(which) for which in sources}, bench.repeats)  # type: ignore[misc]
    now, then = (statistics.median(found[which]) * 1e3 for which in sources)
    yield Row(
        "ecosystem",
        f"import dbtaskqueue, against {BEFORE} (0.4.0)",
        [a / b for a, b in zip(found["now"], found["before"], strict=True)],
        "×",
        1.05,
        details=f"{now:.1f} ms against {then:.1f} ms of CPU time, the least of {IMPORTS} imports each",
    )


def _import(source: Path) -> float:
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", _IMPORT], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(done.stdout)


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
