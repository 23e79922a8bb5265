"""The referee of parents and children: it judges by files in which tasks record their starts and ends.

Each task appends a line at its start and at its end, with the monotonic clock, which all processes of a machine share.
``Watch`` checks meanwhile, at every moment at which it reads, that the tables agree with each other.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from engines import cursor
from helpers import until
from processes.oracle import runs_of

from dbtaskqueue import RetryPolicy, StoreUnavailable, Task, TaskQueue
from dbtaskqueue.states import FINAL

WORKER = """
import logging, os, sys, time
from dbtaskqueue import AbandonTask, RetryPolicy, TaskQueue, Worker, current_task
from dbtaskqueue._maintenance.decider import Decider
url, directory, concurrency, batch = sys.argv[1:]
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
Decider.interval = 0.5  # what a killed process has left is decided soon
log = os.open(directory + "/runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def work(does):
    task = current_task()
    def note(what):
        os.write(log, f"{what} {task.id} {task.token} {os.getpid()} {time.monotonic_ns()}\\n".encode())
    note("start")
    time.sleep(does.get("seconds", 0))
    fails = does["do"] == "fail" or does["do"] == "fail until retried" and not os.path.exists(f"{directory}/retried")
    if does["do"] == "commit" and not fails:
        note("end")
        with task.transaction(does["do"]):
            return
    note("end")
    if fails:
        raise AbandonTask("as planned")
    if does["do"] == "fail once" and task.attempt == 1:
        raise ValueError("as planned")
    return does["do"]
queue = TaskQueue(url, retry=RetryPolicy(delay=0.02, linear=1, factor=1.0, max_attempts=None))
Worker(queue, concurrency=int(concurrency)).run(work, batch=int(batch) or "auto")
"""
"""A payload ``does`` says what a task does: it is done, or it fails for good, once, or until the file exists."""

EAGER = RetryPolicy(delay=0.02, linear=1, factor=1.0, max_attempts=None)
SHAPES = [(1, 0), (4, 0), (1, 20), (4, 1)]
"""The concurrency and the batch of each worker of a crew. 0: "auto"."""


class Crew:
    """Four workers, which can be killed. One that was killed is started again.

    Their logs must not contain a traceback or a deadlock. ``outages``: they may log that the server was unavailable.
    """

    def __init__(self, url: str, directory: Path, *, outages: bool = False) -> None:
        self.log = directory / "runs"
        self._outages = outages
        self._url = url
        self._directory = directory
        self._errors = [directory / f"errors {number}" for number in range(len(SHAPES))]
        self._processes: list[subprocess.Popen[bytes]] = []
        self.kills = 0

    def __enter__(self) -> Self:
        with TaskQueue(self._url) as queue:
            self._processes = [self._start(number) for number in range(len(SHAPES))]
            until(lambda: queue.stats().workers >= len(SHAPES), within=120, what="all workers")
        return self

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, self._url, self._directory, *map(str, SHAPES[number])]
        with self._errors[number].open("ab") as errors:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors)

    def kill(self) -> None:
        """Kill a worker with SIGKILL, and start another one in its place."""
        number = random.randrange(len(SHAPES))
        assert self._processes[number].poll() is None, self._errors[number].read_text()
        self._processes[number].kill()
        self._processes[number].wait()
        self._processes[number] = self._start(number)
        self.kills += 1

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=60)
            finally:
                process.kill()
        if error is None:
            text = "".join(path.read_text() for path in self._errors)
            assert "Traceback" not in text, text
            assert "deadlock" not in text.lower(), text
            assert self._outages or "database unavailable" not in text, text


# -- the tables ------------------------------------------------------------------------------------

RULES = {
    "a gate counts its open edges": """
        SELECT gate.task, gate.open, count(edge.parent) FROM dbtaskqueue_gate AS gate
          LEFT JOIN dbtaskqueue_edge AS edge ON edge.child = gate.task AND edge.met IS NULL
         GROUP BY gate.task, gate.open HAVING gate.open <> count(edge.parent)""",
    "an unfinished task is blocked if and only if its gate is open": """
        SELECT task.id, task.state, task.blocked, gate.open FROM dbtaskqueue_task AS task
          JOIN dbtaskqueue_gate AS gate ON gate.task = task.id
         WHERE task.finished_at IS NULL AND (task.blocked & 1) <> CASE WHEN gate.open > 0 THEN 1 ELSE 0 END""",
    "an open edge has a parent that has not ended, or is listed as undecided": """
        SELECT edge.parent, edge.child FROM dbtaskqueue_edge AS edge
          JOIN dbtaskqueue_task AS parent ON parent.id = edge.parent
         WHERE edge.met IS NULL AND parent.finished_at IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM dbtaskqueue_undecided AS listed WHERE listed.parent = edge.parent)""",
    "an edge that is met agrees with the state of its parent": """
        SELECT edge.parent, edge.child, edge.met, parent.state FROM dbtaskqueue_edge AS edge
          JOIN dbtaskqueue_task AS parent ON parent.id = edge.parent
         WHERE edge.met IS NOT NULL
           AND edge.met <> CASE WHEN edge.wants = 2 OR (edge.wants = 1) = (parent.state = 'done') THEN 1 ELSE 0 END""",
}
"""For each rule a query that finds violations. A single statement sees a single moment."""


def broken_rules(its: Any) -> dict[str, list[Any]]:
    """Return the rules that the tables break, with the rows."""
    found = {}
    for rule, query in RULES.items():
        its.execute(query)
        if rows := its.fetchall():
            found[rule] = list(rows)
    return found


def check_tables(url: str) -> None:
    """Check that the tables agree with each other, and that nothing is left undecided."""
    with cursor(url) as its:
        assert not broken_rules(its)
        its.execute("SELECT parent FROM dbtaskqueue_undecided")
        assert not its.fetchall(), "undecided parents are left"


class Watch:
    """Checks the rules repeatedly in a thread, until the end of its block. A server may be unavailable meanwhile."""

    def __init__(self, url: str, *, outages: bool = False) -> None:
        self._url = url
        self._outages = outages
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.checks = 0
        self._found: list[object] = []

    def _run(self) -> None:
        while not self._stop.wait(0.05) and not self._found:
            try:
                with cursor(self._url) as its:
                    if found := broken_rules(its):
                        self._found.append(found)
                self.checks += 1
            except Exception as error:
                if not self._outages:
                    self._found.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if error is None:
            assert not self._found, self._found
            assert self.checks > 0


# -- the files -------------------------------------------------------------------------------------


def no_early_child(log: Path, children: dict[int, Iterable[int]]) -> None:
    """No child started before the last run of each parent had ended, and no task ran twice under one token."""
    runs = runs_of(log)
    for child, parents in children.items():
        first = min((run.start for run in runs.get(child, ())), default=None)
        if first is None:
            continue
        for parent in parents:
            for run in runs.get(parent, ()):
                assert run.start < first, f"parent {parent} started after its child {child}: {run} {first}"
            ended = [run for run in runs.get(parent, ()) if run.end is not None and run.end < first]
            last = runs[parent][-1] if parent in runs else None
            assert last is None or last in ended, f"child {child} started at {first} before the end of {parent}: {last}"


# -- waves -----------------------------------------------------------------------------------------


class Wave(NamedTuple):
    """Parents, their child, and the child of that."""

    parents: Sequence[Task]
    child: Task
    last: Task


class Waves:
    """Fans of parents with one child each, of which some are always unfinished."""

    def __init__(self, queue: TaskQueue, *, at_once: int = 3, most: int = 60) -> None:
        self._queue = queue
        self._at_once = at_once
        self._most = most
        self.waves: list[Wave] = []
        self._open: list[Wave] = []

    def keep_going(self) -> None:
        """Add waves if too few are unfinished. A call that fails because the server is unavailable is left out."""
        with contextlib.suppress(StoreUnavailable):
            self._open = [wave for wave in self._open if wave.last.refresh().state not in FINAL]
            while len(self._open) < self._at_once:
                self._open.append(self._new())
                self.waves.append(self._open[-1])

    def _new(self) -> Wave:
        number = random.randint(1, self._most)
        does = [{"do": random.choice(["nothing", "nothing", "fail once", "commit"])} for _ in range(number)]
        when = random.choice(["done", "ended"])
        if random.random() < 0.5:
            with self._queue.flow() as flow:
                nodes = [flow.add(each) for each in does]
                child = flow.add({"do": "nothing"}, after=nodes, when=when)
                last = flow.add({"do": "nothing"}, after=child)
            return Wave([node.task for node in nodes], child.task, last.task)
        parents = self._queue.enqueue_many(does)  # some of them end before their child is stored
        joined = self._queue.enqueue({"do": "nothing"}, after=parents, when=when)
        return Wave(parents, joined, self._queue.enqueue({"do": "nothing"}, after=joined))

    def finish(self, log: Path) -> None:
        """Wait for all waves, and judge them."""
        tasks = [wave.last for wave in self.waves]
        until(lambda: all_final(tasks), within=120, what="the end of each last child")
        everything = [task for wave in self.waves for task in (*wave.parents, wave.child, wave.last)]
        found = {str(self._queue.get(task.id).state) for task in everything}
        assert found == {"done"}, found
        children = {wave.child.id: [parent.id for parent in wave.parents] for wave in self.waves}
        no_early_child(log, {**children, **{wave.last.id: [wave.child.id] for wave in self.waves}})
        runs = runs_of(log)
        assert {task.id for task in everything} <= set(runs), "a task that never ran is done"


def all_final(tasks: Sequence[Task]) -> bool:
    """Whether all tasks have ended; False while the server is unavailable."""
    try:
        return all(task.state in FINAL or task.refresh().state in FINAL for task in tasks)
    except StoreUnavailable:
        return False


def by_id(queue: TaskQueue) -> dict[int, Task]:
    """Return all tasks of a queue as they are now."""
    found: dict[int, Task] = {}
    while some := queue.tasks(limit=5000, before=min(found, default=None)):
        found |= {task.id: task for task in some}
    return found


# -- races -----------------------------------------------------------------------------------------

RACER = """
import json, mmap, os, struct, sys, time
from dbtaskqueue import TaskQueue
url, place, me, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open(place, "r+b") as file:
    memory = mmap.mmap(file.fileno(), 16)
def meet(number):
    # both processes leave this at the same moment, as far as a machine allows that
    memory[8 * me : 8 * me + 8] = struct.pack("q", number)
    while struct.unpack("q", memory[8 - 8 * me : 16 - 8 * me])[0] < number:
        if os.getppid() == 1:
            os._exit(1)
        time.sleep(0)
"""
"""How the code of a racer starts. It has ``queue``, the round's ``number``, and calls ``meet(number)``."""


def race(url: str, directory: Path, rounds: int, one: str, other: str, within: float) -> None:
    """Run two processes, which execute ``one`` and ``other``. Both must end without an error."""
    place = directory / "meeting place"
    place.write_bytes(bytes(16))
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACER + code, url, place, str(me), str(rounds)],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for me, code in enumerate((one, other))
    ]
    try:
        until(lambda: any(map(_has_ended, processes)), within=within, what="the end of a racer")
        failed = [process for process in processes if process.poll()]
        for process in failed or processes:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _has_ended(process: subprocess.Popen[str]) -> bool:
    return process.poll() is not None
