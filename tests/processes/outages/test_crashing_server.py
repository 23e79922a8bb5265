"""A server that crashes 20 times under 4 producers and 4 workers, 20,000 tasks: nothing acknowledged is lost.

The servers are durable, as users have them, and crash really: PostgreSQL by an immediate shutdown, MariaDB by
SIGKILL. The oracle is files that the processes write.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
from helpers import spawn, until
from processes.oracle import WORKER, lines, runs_of
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer

from dbtaskqueue import StoreUnavailable, Task, TaskQueue

TASKS = 20_000
CRASHES = 20
PROCESSES = 4

PRODUCER = """
import os, sys, time
from dbtaskqueue import StoreUnavailable, Task, TaskQueue
url, file, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def note(what, pairs):
    os.write(log, "".join(f"{what} {number} {id}\\n" for number, id in pairs).encode())
queue = TaskQueue(url)
while first < last:
    numbers = list(range(first, min(last, first + 1 + first % 50)))
    try:
        tasks = queue.enqueue_many(numbers)
    except StoreUnavailable as gone:
        note("doubt" if gone.maybe_done else "refused", [(number, 0) for number in numbers])
        time.sleep(0.01)
        continue
    note("accepted", [(number, task.id) for number, task in zip(numbers, tasks)])
    first += len(numbers)
queue.close()
"""

GONE, BACK = "database unavailable", "database available again"


class Crashing(PostgresServer):
    """PostgreSQL, whose crash is its own immediate shutdown: SIGKILL of a postmaster alone is no fair game."""

    def crash(self) -> None:
        self.stop("immediate")


class Killed(MariaDBServer):
    """MariaDB, whose crash is SIGKILL."""

    def crash(self) -> None:
        self.kill()


@pytest.mark.parametrize("make", [Crashing, Killed], ids=["postgresql", "mariadb"])
def test_nothing_is_lost_and_nothing_ends_twice(make: type[Crashing | Killed], tmp_path: Path, started: list) -> None:
    told, log = tmp_path / "told", tmp_path / "runs"
    with make() as server:
        url = server.url()
        with TaskQueue(url):
            pass
        bounds = [TASKS * number // PROCESSES for number in range(PROCESSES + 1)]
        producers = [spawn(PRODUCER, url, told, first, last) for first, last in itertools.pairwise(bounds)]
        workers = [spawn(WORKER, url, log) for _ in range(PROCESSES)]
        started += producers + workers
        with TaskQueue(url) as queue:  # who starts while the server is away is told so, and ends
            until(lambda: queue.stats().workers == PROCESSES, what="all workers")
        until(lambda: all(producer_began(told, first) for first in bounds[:-1]), what="all producers")
        for crash in range(1, CRASHES + 1):
            enough = crash * TASKS // (CRASHES + 1)
            until(lambda enough=enough: accepted(told) >= enough or failed(producers), what=f"{enough} accepted tasks")
            server.crash()
            server.start()
        for producer in producers:
            assert producer.wait(timeout=60) == 0, producer.communicate()
        with TaskQueue(url) as queue:
            until(lambda: is_through(queue), within=60, what="the end of all tasks")
            logs = [stopped(worker) for worker in workers]
            check(told, log, queue)
        for text in logs:
            assert 1 <= text.count(GONE) == text.count(BACK) <= CRASHES, text
            assert "Traceback" not in text, text


def producer_began(told: Path, first: int) -> bool:
    return any(line.split()[1] == str(first) for line in lines(told))


def accepted(told: Path) -> int:
    return sum(line.startswith("accepted") for line in lines(told))


def failed(producers: list) -> bool:
    for producer in producers:
        assert not producer.poll(), producer.communicate()[1]
    return False


def is_through(queue: TaskQueue) -> bool:
    try:
        stats = queue.stats()
    except StoreUnavailable:
        return False
    return stats.pending + stats.failed + stats.reserved + stats.running == 0


def stopped(worker) -> str:
    worker.terminate()
    _, text = worker.communicate(timeout=60)
    assert worker.returncode == 0, text
    return text


def check(told: Path, log: Path, queue: TaskQueue) -> None:
    words = [line.split() for line in lines(told)]
    ids = {int(id): int(number) for what, number, id in words if what == "accepted"}
    doubts = Counter(int(number) for what, number, _ in words if what == "doubt")
    assert sorted(ids.values()) == list(range(TASKS)), "a producer was not told of each of its tasks once"
    runs = runs_of(log)
    assert set(ids) <= set(runs), "a task was accepted and never ran"
    assert all(len(each) == 1 and each[0].end for each in runs.values()), "a task ran twice though no worker died"
    tasks = all_tasks(queue)
    assert {task.id for task in tasks} == set(runs), "what exists and what ran are the same"
    assert {task.state for task in tasks} == {"done"}
    assert {task.attempt for task in tasks} == {1}, "an attempt was spent on a crash of the server"
    twice = Counter(task.payload for task in tasks if task.id not in ids)
    assert all(twice[number] <= doubts[number] for number in twice), "what a producer was told is not there, is there"
    print(f"{len(twice)} doubles, all of which their producers were told may exist; {len(doubts)} doubts")


def all_tasks(queue: TaskQueue) -> list[Task]:
    tasks: list[Task] = []
    while more := queue.tasks(limit=5000, before=tasks[-1].id if tasks else None):
        tasks += more
    return tasks
