"""The Nth write fails, for N = 1, 2, 3 … until a whole scenario passes without a failure, as in SQLite's own tests.

By default a sixth of all N is tried; with ``--all-engines`` each one.

A process is killed at its Nth write to the database (or in the middle of it), or the write fails with "disk full" or
"I/O error", or a request for a lock fails with "locked". Afterwards the file must be intact, the invariants hold,
everything acknowledged exist, and a worker bring every task to a final state.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from processes.crash import scenario

from dbtaskqueue import Task, TaskNotFound, TaskQueue
from dbtaskqueue.states import FINAL

LANES = 4
"""The number of tests into which each loop is split, so that they can run at the same time."""
THINNED = 6
"""By default, a test tries only one of this many N."""
_FAILURES = 3
"""The number of successive calls that fail, if the process survives them."""


class Server:
    """The process that runs the scenario repeatedly."""

    def __init__(self, shim: Path) -> None:
        environment = {**os.environ, "LD_PRELOAD": str(shim)}
        command = [sys.executable, scenario.__file__, str(shim)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)

    def live(self, directory: Path, how: int, first: int, times: int) -> str:
        """Run the scenario once, in a directory of its own; return its outcome."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        (directory / "db").mkdir(parents=True)
        self.process.stdin.write(f"{directory} {how} {first} {times}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture
def server(shim: Path) -> Iterator[Server]:
    """A server for this test alone."""
    server = Server(shim)
    yield server
    server.process.kill()
    server.process.communicate()


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """The step from one N of a test to its next."""
    return LANES * (1 if request.config.option.all_engines else THINNED)


@pytest.mark.parametrize("lane", range(LANES))
@pytest.mark.parametrize("how", [scenario.KILL, scenario.TORN], ids=["killed", "killed-in-the-middle"])
def test_killed_at_every_write(server: Server, tmp_path: Path, how: int, lane: int, stride: int) -> None:
    for number in itertools.count(lane * stride // LANES + 1, stride):
        directory = tmp_path / str(number)
        fate = server.live(directory, how, number, 1)
        check(directory)
        assert fate in ("killed", "passed"), (directory / "errors").read_text()
        if fate == "passed":
            assert number > 100, "too few writes: the shim does not see them"
            return


@pytest.mark.parametrize("lane", range(LANES))
@pytest.mark.parametrize(
    "how", [scenario.FULL_DISK, scenario.IO_ERROR, scenario.LOCK], ids=["disk-full", "io-error", "locked"]
)
def test_every_write_fails(server: Server, tmp_path: Path, how: int, lane: int, stride: int) -> None:
    for number in itertools.count(lane * stride // LANES + 1, stride):
        directory = tmp_path / str(number)
        fate = server.live(directory, how, number, _FAILURES)
        assert fate in ("recovered", "passed"), (directory / "errors").read_text()
        check(directory)
        if fate == "passed":
            assert number > 100, "too few calls: the shim does not see them"
            return


def check(directory: Path) -> None:
    """Check everything that must hold after any failure."""
    path = directory / "db" / "taskqueue.sqlite"
    if path.exists():
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    url = f"sqlite:///{path}"
    with contextlib.ExitStack() as stack:
        lanes = [stack.enter_context(TaskQueue(url, queue=name)) for name in ("default", "other", "worked")]
        acknowledged_exists(lanes[0], (directory / "log").read_text().splitlines())
        tasks = [task for lane in lanes for task in lane.tasks(limit=1000)]
        keys = [task.key for task in tasks if task.key and task.state not in FINAL]
        assert len(keys) == len(set(keys)), "two unfinished tasks have one key"
        for task in tasks:
            drain_is_free(task)
        before = {task.id: (task.state, task.token) for task in tasks}
        for lane in lanes:
            way_out(lane)
        for task in tasks:
            whole(task.refresh())
            attempts_bounded(task)
            drain_is_free(task)
            final_is_final(task, *before[task.id])


def acknowledged_exists(queue: TaskQueue, log: list[str]) -> None:
    """Each task is in the state that was last acknowledged, or in one that was requested since."""
    states: dict[int, set[str]] = {}
    for line in log:
        word, number, state = line.split()
        states[int(number)] = {state} if word == "is" else {*states[int(number)], state}
    for task, allowed in states.items():
        if allowed & {"pending", "failed"}:
            allowed.add("reserved")  # if it was claimed by a fetch whose answer was lost
        found = found_state(queue, task)
        assert found in allowed, f"task {task} is {found}, not {' or '.join(sorted(allowed))}"
    in_batch = [task for task in queue.tasks(limit=1000) if isinstance(task.payload, dict) and "batch" in task.payload]
    assert len(in_batch) % scenario.BATCH == 0, "half a batch was stored"


def found_state(queue: TaskQueue, task: int) -> str:
    try:
        return queue.get(task).state
    except TaskNotFound:
        return "gone"


def way_out(queue: TaskQueue) -> None:
    """A worker brings every task to a final state, including those of dead workers."""
    queue.resume()
    for task in queue.tasks(state="pending", limit=1000):
        if task.start_at > datetime.now(UTC):  # it released itself for an hour
            task.cancel()
    while tasks := queue.fetch(100, timeout=0):
        for task in tasks:
            with task:
                task.result = "at last"
        del task, tasks
    assert all(task.state in FINAL for task in queue.tasks(limit=1000)), [*map(repr, queue.tasks())]


def whole(task: Task) -> None:
    """A task is complete, although its data are in two tables."""
    assert task.payload is None or isinstance(task.payload, str) or len(task.payload) == 1
    if task.payload and set(task.payload) <= {"x", "y"}:
        assert len(task.payload) == scenario.LONG
    if task.state == "done" and task.result != "at last":
        assert task.result == task.payload or len(task.result["text"]) == scenario.LONG


def attempts_bounded(task: Task) -> None:
    assert task.max_attempts is None or task.attempt <= task.max_attempts
    numbers = [attempt.token for attempt in task.attempts()]
    assert numbers == sorted(set(numbers)), "token_rises"


def drain_is_free(task: Task) -> None:
    """Releases, by a holder or by a worker that stopped, spend no attempt; every other start does."""
    spent = [attempt for attempt in task.attempts() if attempt.outcome != "released"]
    assert task.attempt == len(spent), f"task {task.id}: {task.attempts()}"


def final_is_final(task: Task, state: str, token: int) -> None:
    assert state not in FINAL or (task.state, task.token) == (state, token)
