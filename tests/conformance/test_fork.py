"""A process that uses a queue forks: the child's commits are kept, and claims stay with the parent."""

from __future__ import annotations

import pytest
from helpers import run_python, spawn

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.pooled("sessions")

FORK = """
import gc, os, sys, threading
from dbtaskqueue import InvalidTransition, TaskQueue

queue = TaskQueue(sys.argv[1])
queue.enqueue_many(["reserved", "running"])
reserved, running = queue.fetch(2)
running.start()
stop = threading.Event()
counts = []

def produce():
    count = 0
    while not stop.is_set():
        queue.enqueue("from a thread")
        count += 1
    counts.append(count)

threads = [threading.Thread(target=produce) for _ in range(3)]
for thread in threads:
    thread.start()
blocked = threading.Thread(target=lambda: TaskQueue(sys.argv[1], queue="silent").fetch(timeout=5), daemon=True)
blocked.start()

CHILDREN, EACH = 4, 25
children = []
for number in range(CHILDREN):
    child = os.fork()
    if not child:
        code = 1
        try:
            for n in range(EACH):
                queue.enqueue(["child", number, n], priority=5)
            for task in (reserved, running):
                for act in (task.start, task.finish, lambda: task.fail("x"), task.release):
                    try:
                        act()
                    except InvalidTransition:
                        pass
                    else:
                        raise SystemExit("a child used its parent's claim")
            del reserved, running, task, act
            gc.collect()
            mine = queue.fetch(3)
            worker = mine[0].worker
            for task in mine:
                with task:
                    task.result = worker
            queue.close()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        os._exit(code)
    children.append(child)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
stop.set()
for thread in threads:
    thread.join()
assert reserved.start()
reserved.finish("parent")
running.finish("parent")
print(sum(counts), running.worker)
"""


def test_fork_in_the_middle_of_use(queue: TaskQueue, url: str) -> None:
    produced, parent = map(int, run_python(FORK, url).split())
    tasks = queue.tasks(limit=100_000)
    from_children = [task.payload for task in tasks if isinstance(task.payload, list)]
    assert sorted(from_children) == [["child", number, n] for number in range(4) for n in range(25)]
    assert sum(task.payload == "from a thread" for task in tasks) == produced
    done = [task for task in tasks if task.state == "done"]
    assert sum(task.result == "parent" for task in done) == 2
    workers = {task.result for task in done} - {"parent"}
    assert len(workers) == 4
    assert parent not in workers
    assert queue.stats().reserved == queue.stats().running == 0


LAST_ONE = """
import os, sys
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
queue.enqueue("from the parent")
queue.stats()
is_closed, report_closed = os.pipe()
child = os.fork()
if not child:
    os.close(report_closed)
    os.read(is_closed, 1)  # waits until the parent has closed its queue, and with it the last connection
    queue.enqueue("from the child")
    os._exit(0)
queue.close()
os.close(report_closed)
assert os.waitpid(child, 0)[1] == 0
with TaskQueue(sys.argv[1]) as later:
    print(*[task.payload for task in later.tasks()], sep=", ")
"""


def test_commits_of_a_child_are_kept_when_its_parent_closes(url: str) -> None:
    """With an inherited connection, the child would write to a log that the parent deletes, and lose the data."""
    assert run_python(LAST_ONE, url) == "from the child, from the parent\n"


DEAD_CHILD = """
import os, sys
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
queue.enqueue_many(["parent's", "child's"])
[mine] = queue.fetch()
mine.start()
child = os.fork()
if not child:
    [its] = queue.fetch()
    its.start()
    os._exit(9)
os.waitpid(child, 0)
[again] = queue.fetch(timeout=30)
print(again.payload, again.attempt, mine.refresh().state)
again.release()
mine.finish()
"""


def test_the_death_of_a_child_does_not_affect_its_parent(url: str) -> None:
    assert run_python(DEAD_CHILD, url) == "child's 1 running\n"


PLAIN_CHILD = """
import os, sys
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
task = queue.enqueue_many("xy")[0]
held, reserved = queue.fetch(2)
held.start()
child = os.fork()
if not child:
    sys.exit(0)  # runs the exit handlers: they must leave the parent's claims alone
assert os.waitpid(child, 0)[1] == 0
assert reserved.start()
held.finish("kept")
print(task.get_result(10))
"""


def test_a_child_that_exits_normally_releases_nothing_of_its_parent(url: str) -> None:
    assert run_python(PLAIN_CHILD, url) == "kept\n"


WAYS_OUT = """
import os, sys, warnings
warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of fork", DeprecationWarning)
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
queue.enqueue("x")
[held] = queue.fetch()
held.start()
queue.stats()

def sessions():  # of a server; a file's are closed before a fork
    connections = queue.store._connections
    return None if sys.argv[1].startswith("sqlite") else (connections._writer, connections._reader)

before = sessions()
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    held.finish(len(queue.tasks()))
    assert sessions() == before, "the parent had to connect again"
    print(held.refresh().result)
else:
    queue.enqueue("from the child")
    queue.stats()
    if sys.argv[2] == "closed":
        queue.close()
    elif sys.argv[2] == "os._exit":
        os._exit(0)
    elif sys.argv[2] == "sys.exit":
        sys.exit(0)
"""


@pytest.mark.parametrize("way", ["the end", "closed", "sys.exit", "os._exit"])
def test_the_parents_sessions_survive_every_end_of_a_child(url: str, way: str) -> None:
    process = spawn(WAYS_OUT, url, way, PYTHONWARNINGS="always", PYTHONDEVMODE="1")
    output, errors = process.communicate(timeout=60)
    assert (output, errors) == ("2\n", "")


MEMORY = """
import os
from dbtaskqueue import TaskQueue
queue = TaskQueue("sqlite:///:memory:")
child = os.fork()
if not child:
    queue.enqueue("from the child")
    queue.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(queue.tasks()[0].payload)
path = queue.store.path
queue.close()
print(os.path.exists(path), os.path.exists(os.path.dirname(path)))
"""


def test_a_temporary_database_is_removed_by_the_process_that_created_it() -> None:
    assert run_python(MEMORY) == "from the child\nFalse False\n"


CLOSED_IN_A_CHILD = """
import os, sys
from pathlib import Path
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
queue.enqueue_many([1, 2])
queue.fetch()[0].release(3600)
child = os.fork()
if child == 0:
    [task] = queue.fetch(timeout=30)
    task.start()
    queue.close()
    task.finish()
    path = queue.store.path
    files = [os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()]
    os._exit(1 if any(file.startswith(path) for file in files) else 7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.engine("sqlite")
def test_a_child_closes_the_database_when_its_last_task_ends_after_a_close(url: str) -> None:
    """Its parent has fetched, too."""
    assert run_python(CLOSED_IN_A_CHILD, url) == "7\n"
