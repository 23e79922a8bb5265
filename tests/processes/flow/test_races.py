"""Two processes end tasks of the same children at the same moment. ``--flow-rounds=10000`` is the full size."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from engines import cursor
from helpers import Background, until
from processes.flow.referee import by_id, check_tables, race

from dbtaskqueue import Task, TaskQueue, Worker, current_task

WHENS = ["done", "ended", "failed"]
PORTION = 250
"""Rounds whose tasks are stored, and fetched, together."""

END_PARENTS = """
queue = TaskQueue(url, queue=f"parents-{me}")
number = 0
while number < rounds:
    for task in queue.fetch(50, timeout=60):
        assert task.start()
        number += 1
        meet(number)
        if task.payload == "fails":
            task.fail("as planned", retry=False)
        else:
            task.finish()
queue.close()
"""


def within(rounds: int) -> float:
    return 60 + rounds / 5


def fates(number: int) -> tuple[str, str]:
    """Return how the two parents of a round end. Each combination comes in turn."""
    return ("is done", "fails")[number % 2], ("is done", "fails")[number // 2 % 2]


def test_two_last_parents_that_end_at_the_same_moment_leave_no_child(url: str, tmp_path: Path, rounds: int) -> None:
    children: list[tuple[Task, bool]] = []
    with TaskQueue(url, queue="children") as queue:
        for first in range(0, rounds, PORTION):
            both = [fates(number) for number in range(first, min(rounds, first + PORTION))]
            ones, others = (queue.lane(f"parents-{me}").enqueue_many([each[me] for each in both]) for me in (0, 1))
            with queue.flow() as flow:
                whens = [WHENS[number % len(WHENS)] for number in range(first, first + len(both))]
                nodes = [
                    flow.add(when, after=parents, when=when)
                    for when, parents in zip(whens, zip(ones, others, strict=True), strict=True)
                ]
            for node, when, ends in zip(nodes, whens, both, strict=True):
                children.append((node.task, when == "ended" or ("fails" in ends) == (when == "failed")))
        race(url, tmp_path, rounds, END_PARENTS, END_PARENTS, within(rounds))
        check_tables(url)
        now = by_id(queue)
        for child, is_free in children:
            assert standing(now[child.id]) == ("pending" if is_free else "cancelled"), now[child.id]
        fetched: list[Task] = []
        while some := queue.fetch(500, timeout=0):
            fetched += some
        free = sorted(child.id for child, is_free in children if is_free)
        assert sorted(task.id for task in fetched) == free, "each free child is handed out once"
        queue.purge()


CANCEL_MIDDLE = """
queue = TaskQueue(url, queue="middle")
number = 0
middle = json.load(open(place + " of the middle"))
while number < rounds:
    number += 1
    meet(number)
    assert queue.cancel(middle[number - 1])
queue.close()
"""

END_IN_TRANSACTIONS = """
from dbtaskqueue import Worker, current_task
queue = TaskQueue(url, queue="parents-0")
numbers = iter(range(1, rounds + 1))
def work(payload):
    meet(next(numbers))
    with current_task().transaction("is done"):
        pass
Worker(queue).run(work, max_tasks=rounds, batch=1)
queue.close()
"""


def triangles(url: str, directory: Path, rounds: int, end_parents: str) -> None:
    """P → X, P → C, X → C: P ends while X is cancelled."""
    found: list[tuple[Task, Task, Task, Task]] = []
    with TaskQueue(url, queue="children") as queue:
        for first in range(0, rounds, PORTION):
            tops = queue.lane("parents-0").enqueue_many(["is done"] * min(PORTION, rounds - first))
            with queue.lane("middle").flow() as flow:
                middles = [flow.add("x", after=top) for top in tops]
            with queue.flow() as other:
                nodes = [
                    [other.add(when, after=[top, middle.task], when=when) for when in ("done", "ended")]
                    for top, middle in zip(tops, middles, strict=True)
                ]
            found += [
                (top, middle.task, one.task, two.task)
                for top, middle, (one, two) in zip(tops, middles, nodes, strict=True)
            ]
        (directory / "meeting place of the middle").write_text(str([middle.id for _, middle, _, _ in found]))
        race(url, directory, rounds, end_parents, CANCEL_MIDDLE, within(rounds))
        check_tables(url)
        now = {id: task for name in ("parents-0", "middle", "children") for id, task in by_id(queue.lane(name)).items()}
        states = Counter(tuple(standing(now[task.id]) for task in each) for each in found)
        assert states == {("done", "cancelled", "cancelled", "pending"): rounds}
        assert all(now[task.id].attempt == 1 for task, _, _, _ in found), "an attempt was lost"
        queue.purge()


def test_a_parent_ends_while_the_middle_of_a_triangle_is_cancelled(
    url: str, tmp_path: Path, rounds: int, engine: str
) -> None:
    triangles(quick_to_find_deadlocks(url, engine), tmp_path, rounds, END_PARENTS)


def test_a_parent_ends_in_its_own_transaction_while_that_task_is_cancelled(
    url: str, tmp_path: Path, rounds: int, engine: str
) -> None:
    triangles(quick_to_find_deadlocks(url, engine), tmp_path, rounds, END_IN_TRANSACTIONS)


@pytest.mark.engine("postgresql", "mariadb")
def test_a_task_that_ends_in_its_own_transaction_does_not_wait_for_locks_on_its_children(url: str, engine: str) -> None:
    """In a deadlock, its statements could not be run again: a task that ends in another way is decided immediately."""
    with TaskQueue(url) as queue:
        parent = queue.enqueue()
        child = queue.enqueue(after=parent)

        def work(payload: object) -> None:
            if current_task().id == parent.id:
                with current_task().transaction("is done"):
                    pass

        with cursor(url) as its:
            if engine == "mariadb":
                its.execute("START TRANSACTION")
            its.execute("SELECT id FROM dbtaskqueue_task WHERE id = %s FOR UPDATE", [child.id])
            worker = Background(lambda: Worker(queue).run(work, burst=True))
            until(lambda: parent.refresh().state == "done", what="the end of the parent")
            assert child.refresh().blocked
            its.execute("COMMIT")
        worker.join()
        assert child.refresh().state == "done"


def standing(task: Task) -> str:
    return "blocked" if task.blocked else str(task.state)


def quick_to_find_deadlocks(url: str, engine: str) -> str:
    """Let PostgreSQL search for a deadlock after 20 ms, not after 1 s: so there are more rounds in a second."""
    if engine != "postgresql":
        return url
    parts = urlsplit(url)
    return parts._replace(query=f"{parts.query}&options=-c%20deadlock_timeout%3D20ms").geturl()
