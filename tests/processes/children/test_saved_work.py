"""Checkpoints, steps and transactions survive when their child, worker or database is killed."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import child_tasks
import pytest
from child_tasks import lines
from engines import execute
from helpers import Background, until
from processes.children.supervised import Supervisor
from servers.mariadb import MariaDBServer
from servers.postgresql import PostgresServer
from servers.proxy import CuttingProxy, Trigger, When, commits
from servers.requirements import must_be_ours
from servers.wire import MariaDBConversation, PostgreSQLConversation

from dbtaskqueue import RetryPolicy, Task, TaskQueue, Worker

EAGER = RetryPolicy(delay=0)
CONVERSATION = {"postgresql": PostgreSQLConversation, "mariadb": MariaDBConversation}
SERVERS: dict[str, type[Any]] = {"postgresql": PostgresServer, "mariadb": MariaDBServer}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "notes"


@pytest.fixture
def go(tmp_path: Path) -> Path:
    return tmp_path / "go"


def enqueue(queue: TaskQueue, do: str, **arguments: Any) -> Task:
    paths = {name: str(value) for name, value in arguments.items() if isinstance(value, Path)}
    return queue.enqueue({"do": do, **arguments, **paths}, retry=EAGER)


def work(queue: TaskQueue) -> None:
    Worker(queue, executor="process").run(child_tasks.act, burst=True)


# -- checkpoints and steps ---------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["run", "stored"])
@pytest.mark.parametrize("step", ["one", "two", "three"])
def test_killed_at_each_step(queue: TaskQueue, file: Path, step: str, moment: str) -> None:
    """A step is repeated only if the child was killed between running and storing it."""
    task = enqueue(queue, "steps", file=file, die_after=f"{step} {moment}")
    work(queue)
    assert (task.refresh().state, task.result, task.attempt) == ("done", ["ONE", "TWO", "THREE"], 2)
    again = [step] if moment == "run" else []
    assert sorted(lines(file)) == sorted(["one", "two", "three", *again])


@pytest.fixture
def table(url: str, queue: TaskQueue) -> str:
    """A table of the application, in the same database."""
    schema = parse_qs(urlsplit(url).query).get("schema")
    name = f"{schema[0]}.orders" if schema else "orders"
    execute(url, f"CREATE TABLE {name} (id BIGINT)")
    return name


def rows(url: str, table: str) -> list[int]:
    return [row[0] for row in execute(url, f"SELECT id FROM {table} ORDER BY id")]


@pytest.fixture
def supervisor(queue: TaskQueue, url: str, tmp_path: Path) -> Iterator[Supervisor]:
    """One worker in a process of its own. A test that fails shows its log, its stacks and the tasks."""
    supervisor = Supervisor(url, tmp_path, 1)
    yield supervisor
    supervisor.log_stacks()
    print(supervisor.log())
    print(*execute(url, "SELECT id, state, attempt, token, worker FROM dbtaskqueue_task ORDER BY id"), sep="\n")
    supervisor.kill()


@pytest.mark.parametrize("what", ["checkpoint", "step", "transaction"])
def test_a_fenced_child_stores_nothing(
    queue: TaskQueue, url: str, supervisor: Supervisor, table: str, file: Path, go: Path, what: str
) -> None:
    """Its worker is stopped, and so cannot report to it that the claim is gone."""
    task = enqueue(queue, "late", file=file, go=go, what=what, table=table)
    until(lambda: lines(file), what="the start of the task")
    worker = supervisor.workers[0].pid
    os.kill(worker, signal.SIGSTOP)
    assert queue.purge() == 1
    queue.retry(task.id)
    go.touch()
    until(lambda: len(lines(file)) == 2, what="the end of the late attempt")
    assert lines(file)[1] == "LeaseLost"
    assert queue.store.saved(task.id) == {}
    assert rows(url, table) == []
    os.kill(worker, signal.SIGCONT)
    until(lambda: task.refresh().state == "done", what="the end of the retried task")
    until(lambda: lines(file)[2:] == ["start", "kept"], what="the last line, written after the commit of a transaction")
    supervisor.stop()


@pytest.mark.engine("mariadb", "postgresql")
def test_a_database_that_restarts_in_the_middle(engine: str, tmp_path: Path, file: Path) -> None:
    steps = 60
    with SERVERS[engine]() as server:
        TaskQueue(server.url()).close()
        supervisor = Supervisor(server.url(), tmp_path, 1)
        try:
            with TaskQueue(server.url()) as queue:
                task = enqueue(queue, "resume", file=file, steps=steps, seconds=0.05)
                for count in (10, 30):
                    until(lambda count=count: len(lines(file)) >= count, what=f"{count} steps")
                    server.kill()
                    server.start()
                until(lambda: task.refresh().finished_at, what="the end of the task")
                assert (task.state, task.attempt, task.result) == ("done", 1, steps), task.error
                assert task.progress is not None
                assert task.progress[:2] == (steps, steps)
                assert lines(file) == [f"1 {number}" for number in range(steps)]
                assert "Traceback" not in supervisor.stop()
        finally:
            supervisor.kill()


# -- a transaction that is the end of the task -----------------------------------------------------------


def they_agree(url: str, table: str, task: Task) -> str:
    """Return the task's state, after checking that the row exists if and only if the task is done."""
    [(count, state)] = execute(
        url,
        f"SELECT (SELECT count(*) FROM {table} WHERE id = %s), (SELECT state FROM dbtaskqueue_task WHERE id = %s)",
        task.payload["number"],
        task.id,
    )
    assert count == (state == "done"), f"{count} rows of a task that is {state}"
    return str(state)


@pytest.mark.parametrize("die", ["before", "inside", "after"])
def test_killed_at_each_point_of_a_transaction(queue: TaskQueue, url: str, table: str, die: str) -> None:
    task = enqueue(queue, "insert", table=table, number=7, die=die)
    running = Background(lambda: work(queue))
    until(lambda: they_agree(url, table, task) == "done", what="the end of the task")
    running.join()
    assert they_agree(url, table, task) == "done"
    assert rows(url, table) == [7]
    assert task.refresh().attempt == (1 if die == "after" else 2)
    assert task.result == 7


def test_killed_at_random_around_the_commit(
    queue: TaskQueue, url: str, supervisor: Supervisor, table: str, file: Path
) -> None:
    for number in range(12):
        # Read before the enqueue: on a busy machine the task is often faster than this test.
        started = len(lines(file))
        task = enqueue(queue, "insert", table=table, number=number, file=file)
        until(lambda started=started: len(lines(file)) > started, what="the transaction")
        time.sleep(random.uniform(0, 0.008))
        _kill(int(lines(file)[-1]))
        until(lambda task=task: they_agree(url, table, task) == "done", what="the end of the task")
    assert rows(url, table) == list(range(12))
    assert "Traceback" not in supervisor.stop()


def commit_after(words: bytes) -> Trigger:
    """Return the trigger for the first COMMIT after a statement with these words."""
    seen = []

    def trigger(statement: bytes) -> bool:
        if words in statement:
            seen.append(statement)
        return bool(seen) and commits(statement)

    return trigger


@pytest.mark.engine("mariadb", "postgresql")
@pytest.mark.parametrize(
    ("when", "killed"), [("before", False), ("before", True), ("after", False), ("after", True), ("silence", True)]
)
def test_a_commit_whose_answer_is_lost(
    engine: str, queue: TaskQueue, url: str, table: str, tmp_path: Path, file: Path, when: When, killed: bool
) -> None:
    """The connection is lost at COMMIT, before or after it took effect. A child may be killed while in doubt."""
    must_be_ours(engine)
    with CuttingProxy(urlsplit(url).port or 0, CONVERSATION[engine]) as proxy:
        supervisor = Supervisor(proxy.url(url), tmp_path, 1)
        try:
            proxy.arm(commit_after(f"INSERT INTO {table}".encode()), when)
            task = enqueue(queue, "insert", table=table, number=7, file=file)
            proxy.wait_until_fired()
            if killed:
                _kill(int(lines(file)[0]))
            until(lambda: they_agree(url, table, task) == "done", what="the end of the task")
            until(lambda: queue.stats().running == 0)
            assert rows(url, table) == [7]
            assert task.refresh().attempt == (2 if when == "before" else 1)
            assert len(lines(file)) == task.attempt
            assert "Traceback" not in supervisor.stop()
        finally:
            supervisor.kill()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it had ended already
        os.kill(pid, signal.SIGKILL)


# -- coroutines --------------------------------------------------------------------------------------------


def test_a_coroutine_in_a_child_is_cancelled(queue: TaskQueue, file: Path) -> None:
    """Its event loop turns SIGTERM into a CancelledError, so that it can clean up."""
    task = enqueue(queue, "coroutine", file=file)
    worker = Worker(queue, executor="process")
    running = Background(lambda: worker.run(child_tasks.act))
    until(lambda: lines(file), what="the start of the task")
    task.cancel()
    until(lambda: task.refresh().state == "cancelled", what="the end of the task")
    assert lines(file)[1:] == ["CancelledError", "left, cancelled: True"]
    worker.stop()
    running.join()
