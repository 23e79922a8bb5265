"""Workers that run tasks in children and are restarted when they die, and the journal that their tasks write."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from helpers import python_path, until
from workers import children_of, is_running

TESTS = Path(__file__).parents[2]
MARK = "DBTASKQUEUE_TEST_OF"

WORKER = """
import faulthandler, json, logging, signal, sys
faulthandler.register(signal.SIGUSR1)
import child_tasks
from dbtaskqueue import Worker
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
options = json.loads(sys.argv[2])
Worker(sys.argv[1], executor="process", **options).run(child_tasks.act)
"""


def environment(directory: Path) -> dict[str, str]:
    """The environment of this process, plus the path of the tests and a mark by which descendants are found."""
    return {**os.environ, "PYTHONPATH": python_path(), MARK: str(directory)}


def _has_in_its_line(pid: int, what: bytes) -> bool:
    try:
        return what in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_heartbeat_process(pid: int) -> bool:
    """Whether that process sends heartbeats for a worker."""
    return _has_in_its_line(pid, b"heartbeat_process.py")


def fork_server_of(worker: int) -> int | None:
    """The pid of a worker's fork server, or None."""
    found = [pid for pid in children_of(worker) if _has_in_its_line(pid, b"fork_server")]
    return found[0] if found and is_running(found[0]) else None


def heartbeat_process_of(worker: int) -> int | None:
    """The pid of a worker's heartbeat process, or None."""
    found = [pid for pid in children_of(worker) if is_heartbeat_process(pid)]
    return found[0] if found and is_running(found[0]) else None


def runners_of(worker: int) -> list[int]:
    """The pids of the children that run a worker's tasks."""
    server = fork_server_of(worker)
    return [] if server is None else [pid for pid in children_of(server) if is_running(pid)]


def zombies_below(root: int) -> list[int]:
    """The descendants of a process that have ended and were not reaped."""
    found, to_visit = [], [root]
    while to_visit:
        children = children_of(to_visit.pop())
        found += [pid for pid in children if not is_running(pid) and Path(f"/proc/{pid}").exists()]
        to_visit += children
    return found


def marked(directory: Path) -> set[int]:
    """All live processes that descend from the workers of a test, even if they have another parent now."""
    found, mark = set(), f"{MARK}={directory}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0") and is_running(int(process.name)):
                found.add(int(process.name))
        except OSError:
            continue
    return found


class Supervisor:
    """Keep this many workers running; ``pids`` has those of all workers that were ever started."""

    def __init__(self, url: str, directory: Path, count: int, **options: object) -> None:
        self._command = [sys.executable, "-c", WORKER, url, json.dumps(options)]
        self._directory = directory
        self.workers = [self._start() for _ in range(count)]
        self.pids = {worker.pid for worker in self.workers}

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._directory / "log").open("ab") as log:
            nothing = subprocess.DEVNULL
            return subprocess.Popen(self._command, stdin=nothing, stderr=log, env=environment(self._directory))

    def restart_the_dead(self) -> None:
        """Start a new worker for each one that has died, as systemd would."""
        for place, worker in enumerate(self.workers):
            if worker.poll() is not None:
                self.workers[place] = self._start()
                self.pids.add(self.workers[place].pid)

    def stop(self) -> str:
        """Send SIGTERM to all workers, which must be enough to end them; return what they logged."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            assert worker.wait(60) == 0, self.log()
        return self.log()

    def log_stacks(self) -> None:
        """Write the stacks of the workers that still run to their log. Call it only once they run tasks."""
        running = [worker for worker in self.workers if worker.poll() is None]
        for worker in running:
            before = len(self.log())
            worker.send_signal(signal.SIGUSR1)
            with contextlib.suppress(AssertionError):  # a suspended or just ended worker writes nothing
                until(lambda before=before: len(self.log()) > before, within=1)

    def log(self) -> str:
        """What all workers have logged."""
        return (self._directory / "log").read_text(errors="replace")

    def kill(self) -> None:
        """Kill everything at the end of a test, whether it passed or failed."""
        for worker in self.workers:
            worker.kill()
            worker.wait()


class JournalLine(NamedTuple):
    """A line of the journal: which task an execution ran, under which token, as which attempt, in which process."""

    what: str
    task: int
    token: int
    attempt: int
    process: str
    words: list[str]


def read_journal(file: Path) -> list[JournalLine]:
    """Return the lines of the journal, oldest first."""
    lines = file.read_text().splitlines() if file.exists() else []
    split = [line.split() for line in lines]
    return [JournalLine(w[0], int(w[1]), int(w[2]), int(w[3]), w[4], w[5:]) for w in split]


def check_journal(lines: list[JournalLine]) -> dict[int, list[JournalLine]]:
    """Check the invariants that the journal can show; return its lines by task."""
    assert not [line for line in lines if line.what == "overlap"], "two executions of a task at once"
    of_task = defaultdict(list)
    for line in lines:
        of_task[line.task].append(line)
    for task, each in of_task.items():
        tokens = [line.token for line in each]
        assert tokens == sorted(tokens), f"task {task}: a late execution continued beside a new one"
        starts = [line.token for line in each if line.what == "start"]
        assert len(starts) == len(set(starts)), f"task {task} ran twice under one token"
        ends = [line for line in each if line.what == "end"]
        assert len(ends) >= 1, f"task {task} did not finish"
        _check_checkpoints(task, each)
        _check_steps(task, each)
    return of_task


def _check_checkpoints(task: int, lines: list[JournalLine]) -> None:
    acknowledged = 0
    for line in lines:
        if line.what == "stored":
            acknowledged = int(line.words[0])
        elif line.what == "found":
            assert int(line.words[0]) >= acknowledged, f"task {task} lost an acknowledged checkpoint"


def _check_steps(task: int, lines: list[JournalLine]) -> None:
    stored: set[str] = set()
    for line in lines:
        if line.what == "step-stored":
            stored.add(line.words[0])
        elif line.what == "step":
            assert line.words[0] not in stored, f"task {task} repeated a step whose result was stored"


def still_there(lines: list[JournalLine]) -> list[str]:
    """The processes in the journal that still run: those of tasks, and those that tasks have started."""
    noted = {line.process for line in lines} | {line.words[0] for line in lines if line.what == "started"}
    return [process for process in noted if _exists(process)]


def _exists(process: str) -> bool:
    pid, _, started = process.partition(":")
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return False
    return fields[19] == started and fields[0] not in "ZX"
