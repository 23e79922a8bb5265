"""Children that the end of their parent has left undecided: another worker's maintenance decides them."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from engines import execute
from helpers import spawn, until
from processes.flow.referee import Crew, Watch, check_tables

from dbtaskqueue import Task, TaskQueue
from dbtaskqueue._store.verbs.base import CHUNK
from dbtaskqueue._system import clock

FANS = {"wide": (5000,), "deep": (70, 70)}
"""For each shape of the descendants the number of children on each level."""

CANCEL = """
import os, sys
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1])
decide, times = queue.store._decide_rest, []
def die_at_the_second(tx, now):
    count = decide(tx, now)
    times.append(now)
    if len(times) == 2:
        os.kill(os.getpid(), 9)  # in the middle of a transaction
    return count
queue.store._decide_rest = die_at_the_second
queue.cancel(int(sys.argv[2]))
"""


@pytest.mark.parametrize("shape", FANS)
def test_a_worker_decides_what_a_killed_process_has_left_undecided_of_a_cancelled_root(
    url: str, tmp_path: Path, shape: str
) -> None:
    with TaskQueue(url) as queue:
        root = queue.enqueue({"do": "nothing"}, start_in=3600)
        level, descendants = [root], list[Task]()
        for width in FANS[shape]:
            level = [child for task in level for child in queue.enqueue_many([{"do": "x"}] * width, after=task)]
            descendants += level
        with Watch(url):
            process = spawn(CANCEL, url, root.id)
            assert process.wait(timeout=120) == -signal.SIGKILL, process.communicate()
            process.communicate()
            stats = queue.stats()
            assert stats.blocked == len(descendants) - 2 * CHUNK, "two transactions were committed"
            assert root.refresh().state == "cancelled"
            with Crew(url, tmp_path):
                until(lambda: queue.stats().blocked == 0, within=60, what="a decision about the others")
        check_tables(url)
        states = Counter(str(task.state) for task in queue.tasks(limit=100_000))
        assert states == {"cancelled": len(descendants) + 1}
        assert all(str(queue.get(task.id).error).startswith("cancelled, since") for task in descendants[::500])
        assert (tmp_path / "runs").read_text() == "", "a cancelled task ran"


def test_a_search_finds_all_parents_that_a_worker_of_an_earlier_version_has_ended(url: str) -> None:
    with TaskQueue(url) as queue:
        parents = queue.enqueue_many(range(CHUNK + 500))
        with queue.flow() as flow:
            one = [flow.add("child", after=parent) for parent in parents]
            other = [flow.add("child", after=parent, when="failed") for parent in parents[:3]]
            both = flow.add("child", after=parents)
        end_without_deciding(url, parents[0].id, parents[-1].id)
        assert queue.stats().blocked == len(one) + len(other) + 1
        assert queue.store.decide_children(clock.now()) == 0, "nothing is listed"
        assert queue.store.decide_children(clock.now(), search=True) == len(one) + 1
        check_tables(url)
        assert not both.task.refresh().blocked
        assert {str(node.task.refresh().state) for node in other} == {"cancelled"}
        assert queue.stats().blocked == 0


def test_a_worker_that_starts_searches_for_such_parents(url: str, tmp_path: Path) -> None:
    with TaskQueue(url) as queue:
        parent = queue.lane("elsewhere").enqueue()
        child = queue.enqueue({"do": "nothing"}, after=parent)
        end_without_deciding(url, parent.id, parent.id)
        with Crew(url, tmp_path):
            until(lambda: child.refresh().state == "done", within=60, what="the end of the child")


def end_without_deciding(url: str, first: int, last: int) -> None:
    """Do what a worker of an earlier version does at the end of its tasks."""
    statement = "UPDATE dbtaskqueue_task SET state = 'done', finished_at = %s WHERE id BETWEEN %s AND %s"
    execute(url, statement, clock.now(), first, last)
