"""Command lines as tasks: how they are enqueued, and that only workers that run commands claim them."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers import Background

from dbtaskqueue import PayloadError, Task, TaskQueue
from dbtaskqueue._store.contract import Claim
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership


def claim(queue: TaskQueue, *, commands: bool, limit: int = 10) -> list[int]:
    """Claim as a worker does; return the ids of the claimed tasks."""
    member = queue._membership
    asked = Claim([queue.name], limit, clock.now(), commands=commands)
    return [record.id for record in queue.store.exchange(member.join(), claim=asked).claimed]


def due(queue: TaskQueue, *, commands: bool) -> int | None:
    return queue.store.next_due([queue.name], commands=commands)


def test_the_payload_is_the_command_line(queue: TaskQueue) -> None:
    task = queue.enqueue_command(
        ("ffmpeg", "-i", "ü.mkv", ""), cwd=Path("/srv"), env={"LANG": "C"}, priority=7, key="k", max_attempts=2
    )
    for seen in (task, queue.get(task.id)):
        assert seen.payload == {"argv": ["ffmpeg", "-i", "ü.mkv", ""], "cwd": "/srv", "env": {"LANG": "C"}}
        assert (seen.is_command, seen.function, seen.priority, seen.max_attempts) == (True, None, 7, 2)
    assert queue.enqueue_command(["other"], key="k").id == task.id
    assert queue.enqueue_command(["true"]).payload == {"argv": ["true"], "cwd": None, "env": None}
    assert not queue.enqueue(["true"]).is_command


@pytest.mark.engine("sqlite")  # refused before a query is sent
@pytest.mark.parametrize(
    ("argv", "more", "error", "says"),
    [
        ("ls -l", {}, TypeError, "shlex.split"),
        (b"ls", {}, TypeError, "argv must be a list"),
        ({"ls"}, {}, TypeError, "argv must be a list"),
        (None, {}, TypeError, "argv must be a list"),
        ([], {}, ValueError, "argv is empty"),
        (["", "x"], {}, ValueError, "the program"),
        (["ls", 7], {}, TypeError, r"argv\[1\]"),
        (["ls", "a\0b"], {}, ValueError, r"argv\[1\] contains U\+0000"),
        (["ls"], {"cwd": 7}, TypeError, "cwd"),
        (["ls"], {"cwd": ""}, ValueError, "cwd is empty"),
        (["ls"], {"cwd": "a\0"}, ValueError, "cwd"),
        (["ls"], {"env": ["A=1"]}, TypeError, "env"),
        (["ls"], {"env": {"A": 1}}, TypeError, "env"),
        (["ls"], {"env": {1: "A"}}, TypeError, "env"),
        (["ls"], {"env": {"": "x"}}, ValueError, "env"),
        (["ls"], {"env": {"A=B": "x"}}, ValueError, "env"),
        (["ls"], {"env": {"A": "\0"}}, ValueError, "env"),
        (["ls", "\ud800"], {}, PayloadError, "surrogate"),
        (["ls"], {"prioritty": 1}, TypeError, "prioritty"),
    ],
)
def test_an_invalid_command_line_is_refused(
    queue: TaskQueue, argv: Any, more: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        queue.enqueue_command(argv, **more)
    assert queue.tasks() == []


def test_a_worker_without_commands_leaves_them_alone(queue: TaskQueue) -> None:
    first, command, last = queue.enqueue(1), queue.enqueue_command(["true"]), queue.enqueue(2)
    assert claim(queue, commands=False) == [first.id, last.id]
    assert claim(queue, commands=False) == []
    assert command.refresh().state == "pending"
    assert claim(queue, commands=True) == [command.id]


def test_a_worker_with_commands_claims_commands_and_tasks_in_order(queue: TaskQueue) -> None:
    ids = [queue.enqueue_command(["true"]).id, queue.enqueue(1).id, queue.enqueue_command(["true"]).id]
    urgent = queue.enqueue_command(["true"], priority=1).id
    assert claim(queue, commands=True, limit=3) == [urgent, *ids[:2]]
    assert claim(queue, commands=True) == ids[2:]


def test_tasks_due_at_the_same_time_are_claimed_in_the_order_of_their_ids(queue: TaskQueue) -> None:
    at = clock.to_datetime(clock.now() - 1000)
    ids = [queue.enqueue_command(["true"], start_at=at).id, queue.enqueue(1, start_at=at).id]
    assert claim(queue, commands=True, limit=1) == ids[:1]


def test_commands_of_a_higher_priority_do_not_hide_tasks_behind_them(queue: TaskQueue) -> None:
    for priority in (9, 5):
        queue.enqueue_command(["true"], priority=priority)
    plain = queue.enqueue(1, priority=-3)
    queue.enqueue_command(["true"], priority=-3)
    assert due(queue, commands=False) == clock.from_datetime(plain.start_at)
    assert claim(queue, commands=False) == [plain.id]
    assert due(queue, commands=False) is None


def test_the_next_due_time_depends_on_whether_the_worker_runs_commands(queue: TaskQueue) -> None:
    later = queue.enqueue(1, start_in=3600)
    command = queue.enqueue_command(["true"])
    assert due(queue, commands=True) == clock.from_datetime(command.start_at)
    assert due(queue, commands=False) == clock.from_datetime(later.start_at)
    assert queue.stats().oldest_due is not None, "operators see the waiting command"


def test_a_plain_fetch_never_gets_a_command_and_does_not_spin(queue: TaskQueue) -> None:
    queue.enqueue_command(["true"])
    queries = 0
    exchange = queue.store.exchange

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal queries
        queries += 1
        return exchange(*arguments, **options)

    queue.store.exchange = counted  # type: ignore[method-assign]
    assert queue.fetch(timeout=0.5) == []
    assert queries < 20
    waiting: Background[list[Task]] = Background(lambda: queue.fetch(timeout=20))
    plain = queue.enqueue(1)
    assert [task.id for task in waiting.join()] == [plain.id]


def test_a_command_wakes_all_waiters_because_not_all_run_commands(queue: TaskQueue, url: str) -> None:
    with ExitStack() as stack:
        waiting = [stack.enter_context(TaskQueue(url)).store.wakeups for _ in range(4)]
        tickets = [wakeups.ticket((queue.name,)) for wakeups in waiting]
        ends = [Background(partial(*pair)) for pair in zip([w.wait for w in waiting], tickets, [300] * 4, strict=True)]
        queue.enqueue_command(["true"])
        for end in ends:
            end.join()


def test_many_commands_before_a_task(queue: TaskQueue) -> None:
    """On PostgreSQL, a claim may skip many rows, and the next claim starts where it ended."""
    for _ in range(300):
        queue.enqueue_command(["true"])
    plain = [queue.enqueue(number).id for number in range(3)]
    assert [claim(queue, commands=False, limit=1) for _ in range(4)] == [*([id] for id in plain), []]
    assert len(claim(queue, commands=True, limit=300)) == 300


def test_a_retried_or_failed_command_stays_a_command(queue: TaskQueue) -> None:
    command = queue.enqueue_command(["true"])
    command.cancel()
    queue.retry(command.id)
    assert claim(queue, commands=False) == []
    assert queue.get(command.id).is_command
    assert claim(queue, commands=True) == [command.id]


@pytest.mark.engine("sqlite")
def test_commands_are_skipped_without_reading_their_rows(queue: TaskQueue) -> None:
    """Checked in SQLite's bytecode: skipping a command reads the index entry, not the row."""
    from dbtaskqueue._store.sqlite.transaction import SQL

    values = {"queue": "default", "commands": 0}
    program = queue.store._connections.read(  # type: ignore[attr-defined]
        lambda tx: tx.connection.execute(f"EXPLAIN {SQL['next_due']}", values).fetchall()
    )
    indexes = {step[2] for step in program if step[1] == "OpenRead" and str(step[5]).startswith("k(")}
    compared = [before[2:4] for before, step in pairwise(program) if before[1] == "Column" and step[1] == "Gt"]
    assert [(cursor in indexes, column) for cursor, column in compared] == [(True, 4)]


def test_a_worker_stores_its_executor(queue: TaskQueue) -> None:
    for executor in (None, "thread", "process", "asyncio"):
        member = Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor=executor)
        id = member.join()
        assert [worker.executor for worker in queue.store.workers() if worker.id == id] == [executor]
        member.leave()
