"""``dbtaskqueue copy`` copies a whole database into an empty one, from any engine to any engine."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from engines import ENGINES, execute
from flow_rules import keeps_rules
from helpers import die_holding

from dbtaskqueue import RetryPolicy, SchemaError, TaskQueue, Worker
from dbtaskqueue._maintenance.ticker import Ticker
from dbtaskqueue._store.contract import Claim, End, ExportBatch, NewAction, Note, OperationRecord
from dbtaskqueue._store.records import TABLES
from dbtaskqueue._store.verbs import SqlStore, dependencies
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership
from dbtaskqueue.cli import copying, main
from dbtaskqueue.schedules import set_paused

pytestmark = pytest.mark.pooled("transactions of many statements")

Empty = Callable[[str], str]


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Empty]:
    """Return a function that makes an empty database of an engine and returns its URL."""
    (tmp_path / "target").mkdir()
    with ExitStack() as stack:
        yield lambda engine: stack.enter_context(ENGINES[engine](tmp_path / "target"))


def copy(source: str, target: str) -> Result:
    return CliRunner().invoke(main, ["copy", source, target])


def fill(url: str) -> None:
    """Fill a database with every kind of row."""
    with TaskQueue(url, queue="a", retry=RetryPolicy(delay=3600, max_attempts=3)) as queue:
        queue.enqueue_many([0, "x" * 1000, None, {"ü": "😀\u2028"}])
        Worker(queue).run(lambda payload: payload, burst=True)
        failed = queue.enqueue("fails", key="k", priority=7)
        Worker(queue).run(lambda payload: 1 / 0, burst=True)
        assert failed.refresh().state == "failed"
        queue.enqueue("later", start_in=3600, priority=-3, max_attempts=9)
        queue.enqueue("cancelled").cancel()
    with TaskQueue(url, queue="b") as queue:
        queue.enqueue("held")
        queue.pause()
    with TaskQueue(url, queue="c") as queue:
        last = queue.enqueue("pruned").id
        Worker(queue).run(lambda payload: None, burst=True)
        assert queue.prune(0) == 1
        assert last == 8 + 1


def picture(url: str) -> list[object]:
    """Return everything that the library shows of a database."""
    seen: list[object] = []
    for name in ("a", "b", "c"):
        with TaskQueue(url, queue=name, create=False) as queue:
            stats = queue.stats()
            seen.append(stats._replace(workers=0, oldest_due=None))
            seen += [(task._record._replace(worker=None), task.attempts()) for task in queue.tasks()]
    return seen


@pytest.mark.parametrize("other", ["sqlite", "postgresql", "mariadb"])
def test_everything_is_copied(url: str, other: str, empty: Empty) -> None:
    target = empty(other)
    fill(url)
    result = copy(url, target)
    assert (result.exit_code, result.output) == (0, "8 tasks copied\n")
    assert picture(target) == picture(url)
    with TaskQueue(target, queue="a") as queue:
        assert queue.enqueue("new").id > 9, "an id that was pruned is not used again"
        assert queue.enqueue("same key", key="k").payload == "fails"
        Worker(queue).run(lambda payload: payload, burst=True)
        assert queue.stats().done == 5


@pytest.mark.parametrize("other", ["sqlite", "postgresql", "mariadb"])
def test_a_graph_that_is_half_done_is_copied_and_continues(
    url: str, other: str, empty: Empty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also children that an end has left undecided, and tasks that may expire."""
    target = empty(other)
    monkeypatch.setattr(copying, "_BATCH", 3)
    monkeypatch.setattr(dependencies, "CHUNK", 2)
    with TaskQueue(url) as queue:
        with queue.flow() as flow:
            one, two = flow.add("one", priority=1), flow.add("two", start_in=3600)
            children = [flow.add(number, after=one) for number in range(4)]
            join = flow.add("join", after=[*children, two], when="ended", expires_in=7200)
            handler = flow.add("handler", after=one, when="failed")
        queue.enqueue("before", before=join)
        monkeypatch.setattr(queue.store, "decide_children", lambda now: 0)
        Worker(queue).run(lambda payload: payload, max_tasks=1)
        before = [task._record for task in queue.tasks()]
        assert queue.stats().blocked == 4
        edges = [queue.store.parents(task.id, 100) for task in queue.tasks()]
        gates = [queue.store.gate(task.id) for task in queue.tasks()]
    assert copy(url, target).exit_code == 0
    with TaskQueue(target) as queue:
        assert [task._record for task in queue.tasks()] == before
        assert [queue.store.parents(task.id, 100) for task in queue.tasks()] == edges
        assert [queue.store.gate(task.id) for task in queue.tasks()] == gates
        Worker(queue).run(lambda payload: payload, burst=True)
        queue.cancel(two.task.id)
        Worker(queue).run(lambda payload: payload, burst=True)
        assert (queue.get(join.task.id).state, queue.get(handler.task.id).state) == ("done", "cancelled")
    keeps_rules(target)


@pytest.mark.parametrize("other", ["sqlite", "postgresql", "mariadb"])
def test_schedules_and_their_ticks_are_copied(
    url: str, other: str, empty: Empty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ticks are copied in batches, before the tasks, so that an interrupted copy can be run again."""
    target = empty(other)
    monkeypatch.setattr(copying, "_BATCH", 2)
    week = 7 * 86_400_000_000
    with TaskQueue(url, queue="a") as queue:
        for name in ("s", "paused"):
            queue.schedule(name, name, every=timedelta(weeks=1), overlap="allow", catch_up="all", window=60 * 604800)
            [record] = queue.store.schedules("a", name)
            past = (record.next_at or 0) - 5 * week
            execute(url, "UPDATE dbtaskqueue_schedule SET next_at = %s WHERE name = %s", past, name)
        Ticker(queue.store, queue.events).tick()
        set_paused(queue.store, "a", "paused", True)
        stored = queue.store.schedules(), queue.store.ticks("a", "s", 99), queue.store.ticks("a", "paused", 99)
    load = SqlStore.load

    def interrupted(store: SqlStore, batch: ExportBatch) -> None:
        raise SchemaError("interrupted")

    monkeypatch.setattr(SqlStore, "load", interrupted)
    assert copy(url, target).exit_code == 1
    monkeypatch.setattr(SqlStore, "load", load)
    result = copy(url, target)
    assert (result.exit_code, result.output) == (0, "10 tasks copied\n")
    with TaskQueue(target, queue="a", create=False) as queue:
        assert len(stored[1]) == 5
        found = queue.store.schedules(), queue.store.ticks("a", "s", 99), queue.store.ticks("a", "paused", 99)
        assert found == stored


@pytest.mark.parametrize("other", ["sqlite", "postgresql", "mariadb"])
def test_output_and_usage_of_attempts_are_copied(url: str, other: str, empty: Empty) -> None:
    target = empty(other)
    with TaskQueue(url, queue="a") as queue:
        queue.enqueue_command(["true"], time_limit=5, stall_limit=0.5, memory_limit=2**40)
        member = Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor="process")
        worker = member.join()
        for verb, output in (("fail", "ü" * 70_000), ("finish", "fine")):
            now = clock.now()
            [record] = queue.store.exchange(worker, claim=Claim(["a"], 1, now, start=True, commands=True)).claimed
            queue.suspend(record.id)
            notes = [Note(record.id, record.token, name, output) for name in ("output", "usage")]
            end = End(verb, record.id, record.token, now, due=now, error=None, cpu=7, memory=2**41)
            queue.store.exchange(worker, notes=notes, ends=[end])
        member.leave()
        with TaskQueue(url, queue="b") as other_queue:
            other_queue.enqueue("x")
    die_holding(url, "b")
    assert copy(url, target).exit_code == 0
    assert picture(target) == picture(url)
    with TaskQueue(target, queue="a", create=False) as queue:
        [task] = queue.tasks()
        assert (task.is_command, task.time_limit, task.stall_limit, task.memory_limit) == (True, 5, 0.5, 2**40)
        outputs = [(attempt.output, attempt.cpu_seconds, attempt.peak_memory) for attempt in task.attempts()]
        assert outputs == [("ü" * 70_000, 7e-6, 2**41), ("fine", 7e-6, 2**41)]


@pytest.mark.parametrize("other", ["sqlite", "postgresql", "mariadb"])
def test_the_audit_log_and_operations_are_copied(
    url: str, other: str, empty: Empty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches, and before the tasks, so that an interrupted copy can be run again. New rows get higher ids."""
    target = empty(other)
    monkeypatch.setattr(copying, "_BATCH", 2)
    with TaskQueue(url, queue="a") as queue:
        for _ in range(5):
            queue.pause(actor="alice")
        queue.resume(actor="bob")
        id = queue.enqueue().id
        queue.cancel(id, actor="alice")
        execute(url, "DELETE FROM dbtaskqueue_action WHERE id = 2")
        now = clock.now()
        operation = OperationRecord(
            *(
                0,
                "cancel",
                "{}",
                "{}",
                "alice",
                "dashboard",
                now,
                0,
                "running",
                "newest.17",
                3,
                2,
                "{}",
                None,
                now,
                None,
            )
        )
        started = NewAction(now, "alice", "dashboard", "cancel")
        ids = [queue.store.create_operation(operation, started) for _ in range(3)]
        stored = queue.audit(), queue.store.operations(99)
    load = SqlStore.load

    def interrupted(store: SqlStore, batch: ExportBatch) -> None:
        raise SchemaError("interrupted")

    monkeypatch.setattr(SqlStore, "load", interrupted)
    assert copy(url, target).exit_code == 1
    monkeypatch.setattr(SqlStore, "load", load)
    assert copy(url, target).exit_code == 0
    with TaskQueue(target, queue="a", create=False) as queue:
        assert (queue.audit(), queue.store.operations(99)) == stored
        assert len(stored[0]) == 9
        queue.pause(actor="alice")
        assert queue.audit()[0].id > stored[0][0].id
        assert queue.store.create_operation(operation, started) > max(ids)


def test_every_column_is_copied(tmp_path: Path) -> None:
    TaskQueue(f"sqlite:///{tmp_path}/all.sqlite").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "all.sqlite")) as connection:
        for table, columns in TABLES.items():
            rows = connection.execute("SELECT name FROM pragma_table_info(?)", [f"dbtaskqueue_{table}"])
            assert {name for (name,) in rows} == set(columns)


def test_an_interrupted_copy_continues_when_it_is_run_again(
    url: str, empty: Empty, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = empty("sqlite")
    fill(url)
    monkeypatch.setattr(copying, "_BATCH", 3)
    loaded: list[int] = []

    def interrupt(store: SqlStore, batch: ExportBatch) -> None:
        if len(loaded) == 2:
            raise KeyboardInterrupt
        loaded.append(len(batch.rows["task"]))
        load(store, batch)

    load = SqlStore.load
    with monkeypatch.context() as interrupted:
        interrupted.setattr(SqlStore, "load", interrupt)
        assert copy(url, target).exit_code == 1
    assert loaded == [3, 3]
    with pytest.raises(SchemaError, match="run it again"):
        TaskQueue(target)
    result = copy(url, target)
    assert (result.exit_code, result.output) == (0, "2 tasks copied\n")
    assert picture(target) == picture(url)


def test_a_target_that_is_not_empty_is_refused(url: str, empty: Empty) -> None:
    target = empty("sqlite")
    fill(url)
    with TaskQueue(target) as queue:
        queue.enqueue("ours")
    before = picture(target)
    result = copy(url, target)
    assert result.exit_code == 1
    assert "not empty" in result.output
    assert picture(target) == before


def test_a_live_worker_of_the_source_is_refused(url: str, empty: Empty) -> None:
    with TaskQueue(url) as queue:
        queue.enqueue()
        [task] = queue.fetch()
        result = copy(url, empty("sqlite"))
        assert result.exit_code == 1
        assert "is alive" in result.output
        task.release()


def test_tasks_of_a_dead_worker_are_rescued_before_the_copy(url: str, empty: Empty) -> None:
    target = empty("sqlite")
    with TaskQueue(url) as queue:
        queue.enqueue("x")
    die_holding(url)
    assert copy(url, target).exit_code == 0
    with TaskQueue(target) as queue:
        [task] = queue.fetch(timeout=10)
        assert [attempt.outcome for attempt in task.attempts()] == ["lost"]


def test_a_source_without_a_schema_is_refused(empty: Empty, tmp_path: Path) -> None:
    result = copy(f"sqlite:///{tmp_path}/none.sqlite", empty("sqlite"))
    assert result.exit_code == 1
    assert "Traceback" not in result.output
