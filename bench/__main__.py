"""``python -m bench [NAME…]``: measure, print a table, exit with 0, even if a target was missed.

``postgresql`` runs all measurements on that server, ``postgresql.latency`` one of them; ``mariadb`` likewise.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest

from .harness import Bench, Row, show, show_markdown, write_json
from .rivals import Rivals, install
from .servers import engines

GROUPS = (
    "throughput",
    "enqueue",
    "latency",
    "idle",
    "backlog",
    "contention",
    "rescue",
    "memory",
    "asyncio",
    "forking",
    "keeping",
    "versions",
    "dependencies",
    "schedules",
    "finding",
    "metrics",
    "dashboard",
    "ecosystem",
)
ON_SERVERS = {
    "postgresql": (
        "throughput",
        "bulk",
        "wakeups",
        "latency",
        "idle",
        "backlog",
        "long_transaction",
        "crowd",
        "churn",
        "steps",
        "versions",
        "dependencies",
        "finding",
        "dashboard",
    ),
    "mariadb": (
        "throughput",
        "latency",
        "idle",
        "backlog",
        "long_transaction",
        "versions",
        "dependencies",
        "finding",
        "dashboard",
    ),
}
_ENGINES = {"postgresql": engines.POSTGRESQL, "mariadb": engines.MARIADB}
_PARTS = {engine: tuple(f"{engine}.{part}" for part in parts) for engine, parts in ON_SERVERS.items()}
NAMES = (*GROUPS, *_PARTS, *(part for parts in _PARTS.values() for part in parts))
_ROOT = Path(__file__).resolve().parent.parent
_HOME = _ROOT / ".bench"


def main() -> None:
    """Run the requested measurements."""
    options = _options()
    rivals = install(_HOME)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=_HOME))
    try:
        bench = Bench(directory, _HOME, rivals, options.quick)
        header = _header(rivals, directory)
        started, load = time.monotonic(), os.getloadavg()[1]
        rows = [row for name in options.names or (*GROUPS, *_PARTS) for row in _measure(name, bench)]
        header |= engines.header()
        header["load"] = f"{load:.1f} before, {os.getloadavg()[1]:.1f} after (means of 5 minutes)"
        header["took"] = f"{time.monotonic() - started:.0f} s" + (
            " (a quick run: figures are rough)" if bench.quick else ""
        )
    finally:
        engines.stop_all()
        shutil.rmtree(directory, ignore_errors=True)
    (show_markdown if options.markdown else show)(header, rows)
    if options.json:
        write_json(options.json, header, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=(*NAMES, []), metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="two repeats with fewer tasks, as a check that all works")
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables, for docs/benchmarks.md")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every repeat's value to a file")
    return parser.parse_args()


def _measure(name: str, bench: Bench) -> list[Row]:
    if name in _PARTS:
        return [row for part in _PARTS[name] for row in _measure(part, bench)]
    engine, _, part = name.rpartition(".")
    if not engine:
        return list(importlib.import_module(f"bench.{name}").measure(bench))
    try:
        return list(importlib.import_module(f"bench.servers.{part}").measure(bench, _ENGINES[engine]))
    except pytest.skip.Exception as missing:  # raised by the tests' servers if one is not installed
        bench.say(str(missing))
        return []


def _header(rivals: Rivals, directory: Path) -> dict[str, str]:
    return {
        "Python": platform.python_version(),
        "SQLite": f"{sqlite3.sqlite_version}, WAL, synchronous=FULL unless a row says NORMAL",
        "rivals": rivals.versions,
        "machine": f"{os.cpu_count()} CPUs, {platform.system()} {platform.release()}, {platform.machine()}",
        "file system": f"{_file_system(directory)}, write and fsync of 4 KiB: {_fsync_cost(directory) * 1e6:.0f} µs",
    }


def _file_system(directory: Path) -> str:
    """Return the type of the file system that has the directory: that of the longest matching mount point."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(len(point), kind) for point, kind in mounts if directory.is_relative_to(point)]
    return max(inside, default=(0, "unknown"))[1]


def _fsync_cost(directory: Path, times: int = 50) -> float:
    """Return the median seconds of a write with fsync: the lower bound of a commit under synchronous=FULL."""
    costs = []
    with (directory / "fsync").open("wb", buffering=0) as file:
        for _ in range(times):
            started = time.perf_counter()
            file.write(bytes(4096))
            os.fdatasync(file.fileno())
            costs.append(time.perf_counter() - started)
    return sorted(costs)[times // 2]


if __name__ == "__main__":
    main()
