"""The whole life of a queue, in which one write fails; run as ``scenario.py SHIM``, with the shim preloaded.

For each line ``DIRECTORY HOW FIRST TIMES`` on stdin, it forks a child that runs the scenario on a new file in that
directory, and prints the outcome: ``killed``, ``passed`` (no write failed), ``recovered`` (one did), or ``failed``
(the traceback is in ``DIRECTORY/errors``).

The states in which a task may be found are written to ``DIRECTORY/log``: ``may ID STATE`` before a verb,
``is ID STATE`` after it was acknowledged. The log is not a database file, so the shim does not count its writes.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from dbtaskqueue import (
    ConfigurationError,
    ReleaseTask,
    RetryPolicy,
    StoreUnavailable,
    Task,
    TaskQueue,
    Worker,
    current_task,
)
from dbtaskqueue._maintenance.heartbeat import ThreadHeartbeat
from dbtaskqueue._store.contract import Claim, End, TaskRecord, WorkerRecord
from dbtaskqueue._system import clock
from dbtaskqueue._system.place import here
from dbtaskqueue._worker import held, loop, membership

T = TypeVar("T")

KILL, TORN, FULL_DISK, IO_ERROR, LOCK, READ_ONLY = range(6)
BATCH = 3
LONG = 2000
"""Characters of a payload and a result that are too large for the task's own row."""
_TRIES = 3
_POLICY = RetryPolicy(delay=0, max_attempts=3)
_DEAD = 2**22 + 1
"""A pid that no process has: Linux assigns none above 2^22."""
_PLACE = (place.boot, place.namespace, 1) if (place := here()) else (None, None, None)


class Life:
    """The scenario, and the log of its requests and acknowledgements."""

    def __init__(self, directory: str, how: int) -> None:
        self._url = f"sqlite:///{directory}/db/taskqueue.sqlite"
        self._log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._how = how

    def say(self, *words: object) -> None:
        os.write(self._log, (" ".join(map(str, words)) + "\n").encode())

    def surely(self, verb: Callable[[], T]) -> T:
        """Repeat a call while the database is unavailable; a lock must never cause an error."""
        for tries in range(_TRIES + 1):
            try:
                return verb()
            except (StoreUnavailable, ConfigurationError):
                if self._how == LOCK or tries == _TRIES:
                    raise
        raise AssertionError("unreachable")

    def become(self, task: Task, state: str, verb: Callable[[], object]) -> None:
        """Bring a task into a state, and log it."""
        self.say("may", task.id, state)
        self.surely(verb)
        self.say("is", task.id, state)

    def live(self) -> None:
        """Call every verb that writes, once."""
        queue = self.surely(lambda: TaskQueue(self._url, retry=_POLICY))
        first = self.surely(lambda: queue.enqueue({"number": 1}, priority=5))
        self.say("is", first.id, "pending")
        for task in self.surely(lambda: queue.enqueue_many([{"batch": number} for number in range(BATCH)])):
            self.say("is", task.id, "pending")
        keyed = self.surely(lambda: queue.enqueue("x" * LONG, key="only one"))
        self.say("is", keyed.id, "pending")
        self.run_to_the_end(queue, keyed)
        self.operate(queue)
        queue.close()
        self.work()

    def run_to_the_end(self, queue: TaskQueue, keyed: Task) -> None:
        """Call the verbs of a holder."""
        first, released = self.surely(lambda: queue.fetch(2, timeout=5))
        self.say("is", first.id, "reserved")
        self.become(first, "running", first.start)
        self.become(first, "done", lambda: first.finish({"text": "y" * LONG}))
        self.become(released, "pending", released.release)
        [failing] = self.surely(lambda: queue.fetch(timeout=5))
        self.become(failing, "running", failing.start)
        self.become(failing, "failed", lambda: failing.fail("not yet"))
        [asked] = self.surely(lambda: queue.fetch(timeout=5))
        self.become(asked, "running", asked.start)
        self.surely(asked.cancel)
        self.become(asked, "cancelled", lambda: asked.fail("as was asked"))
        self.become(keyed, "cancelled", keyed.cancel)

    def operate(self, queue: TaskQueue) -> None:
        """Call the verbs of an operator."""
        [hopeless] = self.surely(lambda: queue.fetch(timeout=5))
        self.become(hopeless, "running", hopeless.start)
        self.become(hopeless, "abandoned", lambda: hopeless.fail("hopeless", retry=False))
        self.become(hopeless, "pending", lambda: queue.retry(hopeless.id))
        self.surely(queue.pause)
        self.surely(queue.resume)
        other = TaskQueue(self._url, queue="other")
        purged = self.surely(other.enqueue)
        self.say("is", purged.id, "pending")
        self.become(purged, "abandoned", other.purge)
        old = self.surely(other.enqueue)
        self.say("is", old.id, "pending")
        self.become(old, "cancelled", old.cancel)
        self.say("may", old.id, "gone")
        self.surely(lambda: other.prune(0))
        self.say("is", old.id, "gone")
        other.close()

    def work(self) -> None:
        """Run a worker, which rescues the tasks of a dead one and runs what is left, three at a time."""
        queue = self.surely(lambda: TaskQueue(self._url, queue="worked", retry=_POLICY))
        payloads = ["dies", "is kept", "fails", "gives itself back", "y" * LONG]
        tasks = self.surely(lambda: queue.enqueue_many(payloads))
        for task in tasks:
            self.say("is", task.id, "pending")
            for state in ("running", "failed", "done"):
                self.say("may", task.id, state)
        dead, held = self.die_holding(queue, tasks[0])
        self.surely(lambda: Worker(self._url, queue="worked")).run(_work, burst=True, batch=BATCH)
        for task in tasks:
            self.say("is", task.id, "pending" if task.payload == "gives itself back" else "done")
        if held is not None:
            late = End("finish", held.id, held.token, clock.now())
            verdict = self.surely(lambda: queue.store.exchange(dead, ends=[late])).ended[0]
            assert not verdict.stored, "one_holder: a late holder has stored something"
        queue.close()

    def die_holding(self, queue: TaskQueue, first: Task) -> tuple[int, TaskRecord | None]:
        """Leave two tasks with a dead worker, the first one started; return the worker's id and the claim on that task.

        Return None if the answer to the claim was lost, so that the dead worker itself did not know its claim.
        """
        row = WorkerRecord(0, "here", _DEAD, *_PLACE, lease=3600.0, beat=0, created_at=clock.now(), lost_at=None)
        dead = self.surely(lambda: queue.store.register(row))
        claim = Claim(["worked"], 1, clock.now(), start=True)
        started = self.surely(lambda: queue.store.exchange(dead, claim=claim)).claimed
        self.surely(lambda: queue.store.exchange(dead, claim=claim._replace(start=False, batched=True)))
        return dead, started[0] if started and started[0].id == first.id else None


def _work(payload: str) -> str:
    if payload == "fails" and current_task().attempt == 1:
        raise ValueError(payload)
    if payload == "gives itself back":
        raise ReleaseTask(3600)
    return payload


def _run(shim: ctypes.CDLL, directory: str, how: int, first: int, times: int) -> str:
    child = os.fork()
    if child == 0:
        _live_and_exit(shim, directory, how, first, times)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return {10: "passed", 11: "recovered"}.get(os.WEXITSTATUS(status), "failed")


def _live_and_exit(shim: ctypes.CDLL, directory: str, how: int, first: int, times: int) -> None:
    code = 2
    try:
        life = Life(directory, how)
        shim.crash_arm(f"{directory}/db/".encode(), how, ctypes.c_long(first), ctypes.c_long(times))
        life.live()
        code = 11 if shim.crash_fired() else 10
    except BaseException:
        shim.crash_disarm()
        with open(f"{directory}/errors", "w") as file:
            traceback.print_exc(file=file)
    os._exit(code)


def main() -> None:
    """Serve until stdin ends, without heartbeat processes and long pauses, which would cost more than the scenario."""
    membership.HeartbeatProcess = ThreadHeartbeat  # type: ignore[misc, assignment]
    held._PAUSES = (0.001,) * len(held._PAUSES)  # type: ignore[assignment]
    loop._RETRY_PAUSE = 0.001, 0.005
    shim = ctypes.CDLL(sys.argv[1])
    for line in sys.stdin:
        directory, how, first, times = line.split()
        print(_run(shim, directory, int(how), int(first), int(times)), flush=True)


if __name__ == "__main__":
    main()
