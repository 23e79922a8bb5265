"""Helpers for all tests: wait for a condition, run threads with a result, start processes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from dbtaskqueue import Task, TaskQueue
from dbtaskqueue._maintenance.rescuer import Rescuer
from dbtaskqueue._store.contract import Acted, WorkerRecord

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 30.0
"""Seconds until a test stops waiting. Generous, because no test depends on the speed of the machine."""


def until(condition: Callable[[], T], *, within: float = PATIENCE, what: str = "the condition") -> T:
    """Wait until a condition is true and return its value. Fail after ``within`` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {within} s"
        time.sleep(0.005)
    return value


def in_a_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test that is an ``async def`` in an event loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


async def soon(condition: Callable[[], T], *, within: float = PATIENCE, what: str = "the condition") -> T:
    """Wait as ``until`` does, while the event loop runs."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {within} s"
        await asyncio.sleep(0.005)
    return value


class Background(Generic[T]):
    """Run a function in a thread. ``join`` returns its value or raises its exception."""

    def __init__(self, act: Callable[[], T]) -> None:
        self._act = act
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._act())
        except BaseException as error:
            self._error = error

    @property
    def runs(self) -> bool:
        """Whether the function is still running."""
        return self._thread.is_alive()

    def join(self, within: float = PATIENCE) -> T:
        """Wait for the function; return its value or raise its exception."""
        self._thread.join(within)
        assert not self._thread.is_alive(), f"the thread did not end within {within} s"
        if self._error is not None:
            raise self._error
        return self._value.pop()


def python_path() -> str:
    """Return PYTHONPATH for a process that imports modules of the tests and the same dbtaskqueue as this process.

    It keeps the present PYTHONPATH, where ``make mutants`` and a second work tree put their copy of the package.
    """
    return os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])


def spawn(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """Start a Python process that runs ``code``; its arguments are in ``sys.argv[1:]``."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def run_python(code: str, *arguments: object, **environment: str) -> str:
    """Run ``code`` in a new Python process and return its output. Fail if it fails."""
    process = spawn(code, *arguments, **environment)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


DIE_HOLDING = """
import os, sys
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1], queue=sys.argv[2])
for task in queue.fetch(int(sys.argv[4]), timeout=30):
    if sys.argv[3] == "running":
        assert task.start()
    print(task.id, task.token, flush=True)
    queue.kept = [*getattr(queue, "kept", []), task]
os._exit(9)
"""


def die_holding(url: str, queue: str = "default", *, state: str = "running", count: int = 1) -> list[int]:
    """Run a worker process that dies while it holds ``count`` tasks in ``state``. Return their ids."""
    process = spawn(DIE_HOLDING, url, queue, state, count)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 9, errors
    return [int(line.split()[0]) for line in output.splitlines()]


class WorkerReads:
    """Counts how often a handle reads the workers, about once a second: a measure that fits a slow machine, too."""

    def __init__(self, queue: TaskQueue) -> None:
        self._look = queue.store.workers
        self.count = 0
        queue.store.workers = self._counted  # type: ignore[method-assign]

    def _counted(self) -> list[WorkerRecord]:
        self.count += 1
        return self._look()

    @staticmethod
    def until_rescued(lease: float) -> float:
        """Return how many reads may pass before a silent worker elsewhere is rescued, with a generous margin."""
        return 3 * (lease / Rescuer.interval + 1)


def start_one_before_each_step(queue: TaskQueue, monkeypatch: Any) -> list[Task[Any]]:
    """Start a task between each search of a bulk action and its change of what it has found. Return the started."""
    change = queue.store.act
    started: list[Task[Any]] = []

    def step(*arguments: Any) -> Acted:
        started.extend(queue.fetch(timeout=5))
        started[-1].start()
        return change(*arguments)

    monkeypatch.setattr(queue.store, "act", step)
    return started


def with_option(url: str, option: str) -> str:
    """Return the URL with one more option."""
    return f"{url}{'&' if '?' in url else '?'}{option}"


def documented_options(engine: str) -> set[str]:
    """Return the URL options that docs/reference/configuration.md lists under the heading of this engine."""
    page = (Path(__file__).parent.parent / "docs" / "reference" / "configuration.md").read_text()
    sections = [page.partition(f"\n### {title}\n")[2].partition("\n#")[0] for title in ("All databases", engine)]
    cells = re.findall(r"^\| (`.*?) \|", "".join(sections), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def child_processes() -> set[int]:
    """Return the pids of this process's children."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in file.read_text().split()}


@contextlib.contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kill a process of the test at the end of the block."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def source_of(package: str = "dbtaskqueue") -> Path:
    """Return the directory of the package's source."""
    import importlib

    return Path(str(importlib.import_module(package).__file__)).parent
