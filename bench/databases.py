"""The SQLite files for measurements: new ones and copies of prepared ones. They are in a directory of the checkout."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from dbtaskqueue import TaskQueue

from .harness import Bench
from .processes import run_child

_CHUNK = 10_000
_numbers = itertools.count(1)


def url(path: Path, synchronous: str = "FULL") -> str:
    """Return the database URL of a file."""
    return f"sqlite:///{path}?synchronous={synchronous}"


def payload(number: int) -> dict[str, object]:
    """Return a small payload. The programs of other systems make the same one."""
    return {"url": f"http://example.com/{number}", "number": number}


@contextlib.contextmanager
def fresh(bench: Bench, template: Path | None = None) -> Iterator[Path]:
    """Yield the path of a new file, or of a copy, which is removed afterwards."""
    path = bench.directory / f"{next(_numbers)}.sqlite"
    if template is not None:
        _copy(template, path)
    try:
        yield path
    finally:
        remove(path)


def _copy(template: Path, path: Path) -> None:
    shutil.copyfile(template, path)
    with path.open("rb+") as file:
        os.fsync(file)  # otherwise the first measured commit would pay for it


def remove(path: Path) -> None:
    """Remove a file and SQLite's other files beside it."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def ours(bench: Bench, tasks: int) -> Path:
    """Return a file with this many due tasks; make it if it does not exist."""
    path = bench.directory / f"ours-{tasks}.sqlite"
    if not path.exists():
        with TaskQueue(url(path, "NORMAL")) as queue:
            for first in range(0, tasks, _CHUNK):
                queue.enqueue_many(payload(number) for number in range(first, min(first + _CHUNK, tasks)))
    return path


def bare(bench: Bench, tasks: int) -> Path:
    """Return the same for the loop written by hand."""
    path = bench.directory / f"bare-{tasks}.sqlite"
    if not path.exists():
        run_child("bare_worker.py", "fill", path, tasks)
    return path


def hueys(bench: Bench, tasks: int) -> Path:
    """Return the same for huey."""
    path = bench.directory / f"huey-{tasks}.sqlite"
    if not path.exists():
        environment = huey_environment(path, "OFF", tasks)
        run_child("huey_fill.py", python=bench.rivals.python, environment=environment)
    return path


def huey_environment(path: Path, synchronous: str, tasks: int) -> dict[str, str]:
    """Return the environment for ``children/huey_tasks.py``."""
    variables = {"BENCH_FILE": str(path), "BENCH_SYNCHRONOUS": synchronous, "BENCH_TASKS": str(tasks)}
    return {**os.environ, **variables}
