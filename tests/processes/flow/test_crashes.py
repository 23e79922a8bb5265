"""A process is killed, or loses its connection, at each step of an end with three children.

By default a quarter of all steps is tried; with ``--all-engines`` each one. On SQLite a step is a write to the file
(before it, and in its middle), on a server it is a statement (before it, and after it). Afterwards a worker brings
everything to its end, and the children agree with how their parent ended.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from processes.crash.scenario import KILL, TORN
from processes.flow.referee import check_tables
from servers.proxy import CuttingProxy, When, commits
from servers.requirements import must_be_ours
from servers.wire import MariaDBConversation, PostgreSQLConversation

from dbtaskqueue import RetryPolicy, StoreUnavailable, Task, TaskQueue, Worker, current_task

THINNED = 4
"""By default, a test tries only one of this many steps."""
MOST = 120
"""The largest possible number of steps."""

DYING = """
import ctypes, os, sys
from dbtaskqueue import TaskQueue, Worker, current_task
from dbtaskqueue._store.mariadb.connections import MariadbLink
from dbtaskqueue._store.postgresql.connections import PostgresqlLink
url, place, shim = sys.argv[1:]
left = -1
def step():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), 9)
def count(link, name):
    method = getattr(link, name)
    def counted(self, *values, **more):
        step()
        answer = method(self, *values, **more)
        step()
        return answer
    setattr(link, name, counted)
for link in (MariadbLink, PostgresqlLink):
    for name in ("start", "rows", "change", "change_each", "commit"):
        count(link, name)
def arm(how, number):
    global left
    if shim:
        ctypes.CDLL(shim).crash_arm(place.encode(), how, ctypes.c_long(number), ctypes.c_long(1))
    else:
        left = number
def disarm():
    global left
    left = -1
    if shim:
        ctypes.CDLL(shim).crash_disarm()
def die(end, task, how, number):
    queue = TaskQueue(url, queue="parents")
    if end == "cancel":
        arm(how, number)
        assert queue.cancel(task)
    elif end == "transaction":
        def work(payload):
            arm(how, number)
            with current_task().transaction("is done"):
                pass
            disarm()
        Worker(queue).run(work, max_tasks=1, batch=1)
    else:
        [held] = queue.fetch(timeout=30)
        assert held.start()
        arm(how, number)
        if end == "finish":
            held.finish("is done")
        else:
            held.fail("as planned", retry=False)
for line in sys.stdin:
    end, task, how, number = line.split()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die(end, int(task), int(how), int(number))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    print("killed" if os.WIFSIGNALED(status) else "passed" if status == 0 else "failed", flush=True)
"""


class Family(NamedTuple):
    """A parent, a child for each ``when``, and a child of the first of these."""

    parent: Task
    done: Task
    ended: Task
    failed: Task
    last: Task

    def check(self) -> str:
        """Check that the children agree with how their parent ended; return that."""
        states = [str(task.refresh().state) for task in self]
        failed = states[0] in ("abandoned", "cancelled")
        assert failed or states[0] == "done", states
        assert states[1:] == [*(("cancelled", "done", "done") if failed else ("done", "done", "cancelled")), states[1]]
        return states[0]


def new_family(queue: TaskQueue) -> Family:
    parent = queue.lane("parents").enqueue("parent")
    children = [queue.enqueue(when, after=parent, when=when) for when in ("done", "ended", "failed")]
    return Family(parent, *children, queue.enqueue("last", after=children[0]))


@pytest.fixture
def stride(request: pytest.FixtureRequest) -> int:
    """The distance between two steps: with ``--all-engines``, each step is tried."""
    return 1 if request.config.option.all_engines else THINNED


@pytest.fixture
def queue(url: str, tmp_path: Path, engine: str) -> Iterator[TaskQueue]:
    """A queue for children; parents are in another one. Its file is in a directory of its own."""
    if engine == "sqlite":
        (tmp_path / "db").mkdir()
        url = f"sqlite:///{tmp_path}/db/taskqueue.sqlite"
    with TaskQueue(url, queue="children", retry=RetryPolicy(delay=0)) as queue:
        yield queue


def bring_to_the_end(queue: TaskQueue, families: list[Family]) -> Counter[str]:
    """Run a worker that rescues and runs everything; return how the parents ended."""
    for family in families:
        if family.parent.refresh().state == "failed":  # another process has rescued it; do not wait for its retry
            queue.retry(family.parent.id)
    ran: Counter[int] = Counter()
    Worker(queue, queues=["parents", "children"]).run(lambda payload: ran.update([current_task().id]), burst=True)
    check_tables(queue.url)
    assert set(ran.values()) == {1}
    return Counter(family.check() for family in families)


@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "transaction"])
def test_killed_at_each_step_of_an_end(
    queue: TaskQueue, tmp_path: Path, end: str, engine: str, stride: int, request: pytest.FixtureRequest
) -> None:
    shim = str(request.getfixturevalue("shim")) if engine == "sqlite" else ""
    environment = {**os.environ, **({"LD_PRELOAD": shim} if shim else {})}
    command = [sys.executable, "-c", DYING, queue.url, f"{tmp_path}/db/", shim]
    pipe = subprocess.PIPE
    families: list[Family] = []
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for how in (KILL, TORN) if shim else (KILL,):
                for number in itertools.count(1, stride):
                    assert number < MOST
                    families.append(new_family(queue))
                    process.stdin.write(f"{end} {families[-1].parent.id} {how} {number}\n")
                    process.stdin.flush()
                    fate = process.stdout.readline().strip()
                    if fate != "killed":
                        break
                assert fate == "passed", process.communicate()[1]
                assert number > 3, "the process dies at no step"
        finally:
            process.kill()
    found = bring_to_the_end(queue, families)
    assert found["done"] > 0, "no end was lost"
    assert set(found) <= {"done", {"fail": "abandoned", "cancel": "cancelled"}.get(end, "done")}


# -- lost connections ------------------------------------------------------------------------------

CONVERSATION = {"postgresql": PostgreSQLConversation, "mariadb": MariaDBConversation}


@pytest.fixture
def proxy(engine: str, url: str, queue: TaskQueue) -> Iterator[CuttingProxy]:
    """A proxy in front of the engine's server."""
    must_be_ours(engine)
    with CuttingProxy(urlsplit(url).port or 0, CONVERSATION[engine]) as proxy:
        yield proxy


def of_the_queue(statement: bytes) -> bool:
    """Return the trigger for each statement about our tables, and for COMMIT."""
    return commits(statement) or b"dbtaskqueue_" in statement


@pytest.mark.engine("postgresql", "mariadb")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("end", ["finish", "fail", "cancel", "transaction"])
def test_a_connection_is_lost_at_each_statement_of_an_end(
    queue: TaskQueue, proxy: CuttingProxy, end: str, when: When, stride: int
) -> None:
    families: list[Family] = []
    with TaskQueue(proxy.url(queue.url), queue="parents", retry=RetryPolicy(delay=0)) as cut:
        for number in itertools.count(1, stride):
            assert number < MOST
            families.append(new_family(queue))
            end_once(cut, proxy, end, families[-1].parent.id, lambda nth=number: proxy.arm(of_the_queue, when, nth=nth))
            proxy.disarm()
            if not proxy.fired:
                break
        assert number > 3, "the trigger sees no statement of an end"
    found = bring_to_the_end(queue, families)
    assert set(found) <= {{"fail": "abandoned", "cancel": "cancelled"}.get(end, "done")}, found


def end_once(cut: TaskQueue, proxy: CuttingProxy, end: str, parent: int, arm: Callable[[], None]) -> None:
    """End a parent, as a user would: what was certainly not stored, and a cancel in doubt, is repeated."""
    armed: list[int] = []

    def work(payload: object) -> None:
        if not armed:
            arm()
            armed.append(parent)
        with current_task().transaction("is done"):
            pass
        proxy.disarm()

    if end == "transaction":
        Worker(cut).run(work, burst=True, batch=1)
        return
    if end == "cancel":
        verb: Callable[[], object] = partial(cut.cancel, parent)
    else:
        [held] = cut.fetch(timeout=30)
        assert held.id == parent
        assert held.start()
        verb = held.finish if end == "finish" else partial(held.fail, "as planned", retry=False)
    arm()
    try:
        verb()
    except StoreUnavailable as error:
        if end == "cancel" or not error.maybe_done:
            verb()
