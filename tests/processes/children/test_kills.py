"""Processes of workers under load are killed at random: no task is lost, and no process is left behind.

``--kills 50`` is the full size. The default is 5 kills for each scenario, and 10 on SQLite with ``--all-engines``.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import until
from processes.children.supervised import (
    Supervisor,
    check_journal,
    fork_server_of,
    heartbeat_process_of,
    marked,
    read_journal,
    runners_of,
    still_there,
    zombies_below,
)

from dbtaskqueue import RetryPolicy, TaskQueue

pytestmark = pytest.mark.one_engine("the behaviour of children depends on processes, not on SQL")

WORKERS = 2
CONCURRENCY = 2
KINDS = ["short"] * 12 + [
    "nap",
    "nap",
    "burn",
    "print",
    "print",
    "resume",
    "resume",
    "steps",
    "steps",
    "family",
    "long",
]
EAGER = RetryPolicy(delay=0.02, linear=1, factor=1.0, max_attempts=None)
AT_MOST = 3


@pytest.fixture
def kills(request: pytest.FixtureRequest, engine: str) -> int:
    options = request.config.option
    return int(options.kills or (10 if options.all_engines and engine == "sqlite" else 5))


@pytest.fixture
def supervisor(url: str, tmp_path: Path) -> Iterator[Supervisor]:
    TaskQueue(url).close()
    supervisor = Supervisor(url, tmp_path, WORKERS, concurrency=CONCURRENCY, lease=5, tasks_per_child=50)
    yield supervisor
    supervisor.kill()


def victim_of(kind: str, supervisor: Supervisor) -> int | None:
    """Return the pid of one of them.

    Of the fork servers, choose one that has started to work: if they are all killed earlier, the worker gives up.
    """
    worker = random.choice(supervisor.workers).pid
    if kind == "worker":
        return worker
    if kind == "heartbeat process":
        return heartbeat_process_of(worker)
    runners = runners_of(worker)
    if kind == "child":
        return random.choice(runners or [None])
    return fork_server_of(worker) if runners else None


def load(directory: Path) -> list[dict[str, str]]:
    return [{"do": "load", "directory": str(directory), "kind": kind} for kind in random.sample(KINDS, len(KINDS))]


def is_through(queue: TaskQueue) -> bool:
    stats = queue.stats()
    return stats.pending + stats.failed + stats.reserved + stats.running == 0


@pytest.mark.parametrize("kind", ["worker", "child", "fork server", "heartbeat process"])
def test_killed_at_random_under_load(url: str, tmp_path: Path, supervisor: Supervisor, kind: str, kills: int) -> None:
    with TaskQueue(url, retry=EAGER) as queue:
        tasks = queue.enqueue_many(load(tmp_path))
        until(lambda: queue.stats().workers == WORKERS, what="all workers")
        for _ in range(kills):
            some, others = (chosen := load(tmp_path))[:-2], chosen[-2:]
            tasks += queue.enqueue_many(some) + queue.enqueue_many(others, max_attempts=AT_MOST)
            time.sleep(random.uniform(0, 0.5))
            os.kill(until(lambda: victim_of(kind, supervisor), what=f"a {kind} to kill"), signal.SIGKILL)
            if kind == "worker":
                until(lambda: any(each.poll() is not None for each in supervisor.workers), what="its end")
                supervisor.restart_the_dead()
        until(lambda: is_through(queue), within=120 + 3 * kills, what="the end of all tasks")
        until(lambda: not any(map(zombies_below, supervisor.pids)), what="an end of all zombies")
        log = supervisor.stop()
        check_the_end(queue, [task.id for task in tasks], tmp_path, kind, kills)
    until(lambda: not marked(tmp_path), what="the end of all processes of fork servers")
    assert still_there(read_journal(tmp_path / "journal")) == []
    assert "Traceback" not in log, log
    assert len(supervisor.pids) == WORKERS + (kills if kind == "worker" else 0), "a worker died that was not killed"


def check_the_end(queue: TaskQueue, ids: list[int], directory: Path, kind: str, kills: int) -> None:
    tasks = {task.id: task for number in ids for task in [queue.get(number)]}
    assert {task.id for task in queue.tasks(limit=100_000)} == set(ids)
    states = Counter(str(task.state) for task in tasks.values())
    assert set(states) <= {"done", "abandoned"}, states
    for task in tasks.values():
        if task.state == "abandoned":
            assert task.attempt == task.max_attempts == AT_MOST, task.error
    lines = read_journal(directory / "journal")
    done = {task.id for task in tasks.values() if task.state == "done"}
    journal = check_journal([line for line in lines if line.task in done])
    assert set(journal) == done, "a task that never ran is done"
    outcomes = Counter(attempt.outcome for task in tasks.values() for attempt in task.attempts())
    lost = {"worker": "lost", "child": "failed", "fork server": "failed"}.get(kind)
    spent = sum(count for outcome, count in outcomes.items() if outcome != "done")
    assert set(outcomes) <= {"done", "abandoned", lost} - {None}, outcomes
    assert spent <= kills * (0 if kind == "heartbeat process" else 1 if kind == "child" else CONCURRENCY), outcomes
    for task in tasks.values():
        assert task.attempt <= (task.max_attempts or task.attempt)
        assert len(task.attempts()) == task.attempt
