"""Parents and children: the sentences of the contract, and what can go wrong when transactions meet.

What needs real processes that are killed, or thousands of rounds, is in tests/processes/flow: two last parents in two
processes, a kill in each write of an end, 100,000 descendants, random graphs under kills. ``copy`` of a half-done graph
between engines is in test_copy.py. That ``why`` names a queue that no worker serves is in test_why.py. Sleeping parents
do not exist yet. A parent whose id is its child's own cannot be named: the id is not known before the child is stored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import child_tasks
import pytest
from engines import execute
from faults import Faults
from flow_rules import keeps_rules
from helpers import Background, die_holding, until
from interleaving import at_statement, counted_statements, start_and_wait_for_lock, users_connection

from dbtaskqueue import (
    InvalidTransition,
    LeaseLost,
    PayloadError,
    RetryPolicy,
    Task,
    TaskCancelled,
    TaskNotFound,
    TaskQueue,
    TaskQueueError,
    Worker,
    current,
    current_task,
)
from dbtaskqueue._store.contract import End
from dbtaskqueue._system import clock

WHENS = ("done", "ended", "failed")
ENDS = ("done", "abandoned", "cancelled")


@pytest.fixture(autouse=True)
def _rules_hold(url: str) -> Iterator[None]:
    """Check the invariants after each test."""
    yield
    keeps_rules(url)


def end(queue: TaskQueue, task: Task, how: str = "done", result: Any = None) -> None:
    """End a due task in this way."""
    if how == "cancelled":
        queue.cancel(task.id)
        return
    held = hold(queue, task)
    if how == "done":
        held.finish(result)
    else:
        held.fail("no luck", retry=how == "failed")


def hold(queue: TaskQueue, task: Task, *, start: bool = True) -> Task:
    """Claim a due task, and start it."""
    held = queue.lane(task.queue).fetch(1000, timeout=0)
    [wanted] = [each for each in held if each.id == task.id]
    if start:
        assert wanted.start()
    for each in held:
        if each is not wanted:
            each.release()
    return wanted


def due(queue: TaskQueue) -> list[int]:
    """Return the ids of the tasks that can be claimed."""
    held = queue.fetch(9, timeout=0)
    for task in held:
        task.release()
    return [task.id for task in held]


def states(*tasks: Task) -> list[str]:
    return [str(task.refresh().state) for task in tasks]


def is_blocked(task: Task) -> bool:
    return task.refresh().blocked is not None


# -- when ------------------------------------------------------------------------------------------

MET = {
    ("done", "done"),
    *(("ended", how) for how in ENDS),
    ("failed", "abandoned"),
    ("failed", "cancelled"),
}


@pytest.mark.pooled("transactions")
@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("when", WHENS)
def test_a_child_waits_for_its_parent(queue: TaskQueue, when: Any, how: str) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent, when=when)
    assert child.state == "pending"
    assert (child.blocked, child.refresh().blocked) == ((["parents"], 1, 1), (["parents"], 1, 1))
    assert due(queue) == [parent.id]
    end(queue, parent, how)
    is_met = (when, how) in MET
    assert states(child) == ["pending" if is_met else "cancelled"]
    assert child.blocked is None
    assert due(queue) == ([child.id] if is_met else [])
    if not is_met:
        with pytest.raises(TaskCancelled, match=str(parent.id)):
            child.get_result(10)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("when", WHENS)
def test_a_child_of_a_parent_that_has_ended(queue: TaskQueue, when: Any, how: str) -> None:
    parent = queue.enqueue("parent")
    end(queue, parent, how)
    child = queue.enqueue("child", after=parent, when=when)
    assert (child.state, states(child)) == (
        ("pending", ["pending"]) if (when, how) in MET else ("cancelled", ["cancelled"])
    )
    assert child.parents() == [parent.id]
    assert parent.children() == [child.id]
    assert child.blocked is None


@pytest.mark.parametrize(
    ("when", "hows", "state"),
    [
        ("done", ("done", "done"), "pending"),
        ("done", ("done", "cancelled"), "cancelled"),
        ("done", ("abandoned", "done"), "cancelled"),
        ("ended", ("abandoned", "cancelled"), "pending"),
        ("failed", ("done", "done"), "cancelled"),
        ("failed", ("done", "abandoned"), "pending"),
        ("failed", ("cancelled", "done"), "pending"),
    ],
)
@pytest.mark.parametrize("enqueued", [0, 1, 2])
def test_two_parents(queue: TaskQueue, when: Any, hows: tuple[str, str], state: str, enqueued: int) -> None:
    """The child is enqueued before, between or after the ends of its parents."""
    parents = queue.enqueue_many(["a", "b"])
    for index, how in enumerate([*hows, None]):
        if index == enqueued:
            child = queue.enqueue("child", after=parents, when=when)
        if how is not None:
            end(queue, parents[index], how)
    assert states(child) == [state]
    assert child.blocked is None


def test_a_parent_that_will_be_retried_has_not_ended(queue: TaskQueue, url: str) -> None:
    parent = queue.enqueue("parent", retry=RetryPolicy(delay=0))
    children = [queue.enqueue(when, after=parent, when=when) for when in WHENS]
    end(queue, parent, "failed")
    assert all(map(is_blocked, children))
    parent = hold(queue, parent)
    parent.release()
    assert die_holding(url) == [parent.id]
    until(lambda: not queue.fetch(timeout=0) or parent.refresh().state != "running", what="the rescue")
    assert all(map(is_blocked, children)), "a rescue is no end"


def test_a_child_starts_only_after_the_last_of_its_parents_in_other_queues(queue: TaskQueue) -> None:
    parents = [queue.lane(name).enqueue(name) for name in ("x", "y", "z")]
    child = queue.lane("w").enqueue("child", after=[parents[0], parents[1].id, parents[2]])
    for open_parents, parent in zip((3, 2, 1), parents, strict=True):
        assert child.refresh().blocked == (["parents"], open_parents, 3)
        assert due(queue.lane("w")) == []
        end(queue, parent)
    assert due(queue.lane("w")) == [child.id]


def test_stats_and_lists_show_blocked_tasks(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent", start_in=3600)
    child = queue.enqueue("child", after=parent)
    stats = queue.stats()
    assert (stats.pending, stats.blocked, stats.oldest_due) == (2, 1, None)
    assert [info.blocked for info in queue.queues()] == [1]
    assert [task.id for task in queue.tasks(state="pending")] == [child.id, parent.id]
    assert [task.id for task in queue.tasks()] == [child.id, parent.id]


# -- after -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [None, [], (), set()])
def test_an_empty_list_names_no_parent(queue: TaskQueue, after: Any) -> None:
    child = queue.enqueue("child", after=after, when="failed")
    assert (child.blocked, child.parents()) == (None, [])
    assert due(queue) == [child.id]


def test_an_unknown_parent_stores_nothing(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    pruned = queue.enqueue("pruned")
    end(queue, pruned)
    queue.prune(0)
    for unknown in (pruned, pruned.id, 10**9, parent.id + 2):  # the last one would be the child's own id
        with pytest.raises(TaskNotFound, match=str(getattr(unknown, "id", unknown))):
            queue.enqueue("child", after=[parent, unknown])
    with pytest.raises(TaskNotFound), queue.flow() as flow:
        flow.add("first")
        flow.add("second", after=10**9)
    assert [task.id for task in queue.tasks()] == [parent.id]
    assert parent.children() == []


def test_a_parent_twice_is_one_parent(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=[parent, parent.id, parent])
    assert child.refresh().blocked == (["parents"], 1, 1)
    end(queue, parent)
    assert child.refresh().blocked is None


@pytest.mark.one_engine("decided in Python")
def test_a_task_of_a_different_database_cannot_be_a_parent(queue: TaskQueue, tmp_path: Path) -> None:
    with TaskQueue(f"sqlite:///{tmp_path}/different.sqlite") as different:
        task = different.enqueue("x")
        for options in ({"after": task}, {"before": task}):
            with pytest.raises(ValueError, match="different database"):
                queue.enqueue("child", **options)  # type: ignore[arg-type]
    assert queue.tasks() == []


@pytest.mark.one_engine("decided in Python")
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"after": "17"}, TypeError),
        ({"after": 1.5}, TypeError),
        ({"after": True}, TypeError),
        ({"after": {"id": 1}}, TypeError),
        ({"after": [None]}, TypeError),
        ({"after": iter([1, 2])}, TypeError),
        ({"after": -1}, ValueError),
        ({"after": 2**63}, ValueError),
        ({"after": range(1, 10_002)}, ValueError),
        ({"when": "always"}, ValueError),
        ({"when": 1}, TypeError),
        ({"after": 1, "when": "never"}, ValueError),
        ({"before": [1]}, TypeError),
        ({"before": 0}, ValueError),
        ({"after": 1, "before": 1}, ValueError),
    ],
)
def test_bad_options_store_nothing(queue: TaskQueue, options: Any, error: type[Exception]) -> None:
    queue.enqueue("1")
    with pytest.raises(error):
        queue.enqueue("child", **options)
    with pytest.raises(error):
        queue.task(name="f")(print).using(**options).enqueue()
    assert len(queue.tasks()) == 1


def test_start_in_counts_from_the_moment_the_child_is_unblocked(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    later = queue.enqueue("later", after=parent, start_in=100)
    moment = clock.to_datetime(clock.now() + 50_000_000)
    at = queue.enqueue("at", after=parent, start_at=moment)
    end(queue, parent)
    ended = parent.refresh().finished_at
    assert ended is not None
    assert 100 <= (later.refresh().start_at - ended).total_seconds() < 130
    assert at.refresh().start_at == moment
    assert due(queue) == []


def test_many_children_of_many_parents(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(3))
    children = queue.enqueue_many(["x"] * 4, after=parents, start_in=0, priority=2)
    assert [child.refresh().blocked for child in children] == [(["parents"], 3, 3)] * 4
    assert parents[0].children() == [child.id for child in children]
    for parent in parents:
        end(queue, parent)
    assert due(queue) == [child.id for child in children]


def test_a_key_counts_while_its_task_is_blocked(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent, key="k")
    again = queue.enqueue("again", key="k")
    assert (again.id, again.deduplicated, again.blocked) == (child.id, True, (["parents"], 1, 1))
    same = queue.enqueue("same", after=parent, key="k")
    assert same.id == child.id
    assert child.refresh().blocked == (["parents"], 1, 1)
    queue.cancel(parent.id)
    assert queue.enqueue("new", key="k").id > child.id


# -- before ----------------------------------------------------------------------------------------


def test_a_task_before_another_becomes_its_parent(queue: TaskQueue, other: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    report = queue.enqueue("report", after=parent)
    more = [other.enqueue("more", before=report), *other.lane("x").enqueue_many(["a", "b"], before=report.id)]
    assert report.refresh().blocked == (["parents"], 4, 4)
    assert report.parents() == [parent.id, *(task.id for task in more)]
    for task in (parent, *more):
        assert is_blocked(report)
        end(queue, task)
    assert not is_blocked(report)


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("how", ENDS)
def test_a_task_before_another_obeys_its_when(queue: TaskQueue, when: Any, how: str) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent, when=when)
    more = queue.enqueue("more", before=child)
    end(queue, parent, "done" if when != "failed" else how)
    end(queue, more, how)
    assert states(child) == ["pending" if (when, how) in MET else "cancelled"]


def test_before_is_refused_once_the_task_is_not_blocked_by_parents(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    plain, released, cancelled = queue.enqueue("plain"), queue.enqueue(1, after=parent), queue.enqueue(2, after=parent)
    queue.cancel(cancelled.id)
    end(queue, parent)
    count = len(queue.tasks())
    for task in (plain, released, cancelled, parent, 10**9):
        with pytest.raises(InvalidTransition, match="not blocked"):
            queue.enqueue("more", before=task)
    assert len(queue.tasks()) == count


def test_before_keeps_to_the_limit_of_parents(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbtaskqueue._store.verbs import dependencies

    monkeypatch.setattr(dependencies, "MAX_PARENTS", 3)
    report = queue.enqueue("report", after=queue.enqueue_many(["a", "b"]))
    with pytest.raises(ValueError, match="more than"):
        queue.enqueue_many(["c", "d"], before=report)
    assert len(queue.tasks()) == 3
    queue.enqueue("c", before=report)
    assert report.refresh().blocked == (["parents"], 3, 3)


@pytest.mark.parametrize("query", ["lock_gates", "insert_edge", "widen_gate"])
@pytest.mark.parametrize("after", [False, True])
def test_before_while_the_last_other_parent_ends(
    queue: TaskQueue, other: TaskQueue, url: str, query: str, after: bool
) -> None:
    parent = queue.enqueue("parent")
    report = queue.enqueue("report", after=parent)
    held = hold(other, parent)
    added: list[Task] = []
    with at_statement(url, query, held.finish, after=after), contextlib.suppress(InvalidTransition):
        added.append(queue.enqueue("more", before=report))
    assert is_blocked(report) == bool(added)
    for task in added:
        end(queue, task)
    assert not is_blocked(report)
    assert states(report) == ["pending"]


def test_before_by_a_task_that_the_other_waits_for(queue: TaskQueue) -> None:
    order: list[str] = []

    @queue.task(name="part")
    def part(name: str) -> None:
        order.append(name)

    @queue.task(name="split")
    def split(report: int) -> None:
        for name in "abc":
            part.using(before=report).enqueue(name)

    @queue.task(name="report")
    def report() -> None:
        order.append("report")

    first = part.using(start_in=0.2).enqueue("first")
    last = report.using(after=first).enqueue()
    split.using(before=last).enqueue(last.id)
    until(lambda: Worker(queue).run(burst=True) or last.refresh().state == "done", what="the report")
    assert sorted(order[:-1]) == ["a", "b", "c", "first"]
    assert order[-1] == "report"


# -- arguments and results -------------------------------------------------------------------------


def test_a_task_as_an_argument_gives_its_result(queue: TaskQueue) -> None:
    @queue.task(name="one")
    def one(value: Any) -> Any:
        return {"value": value}

    @queue.task(name="many")
    def many(first: Any, *rest: Any, **named: Any) -> list[Any]:
        parents = [(p.id, p.function, str(p.state), p.result) for p in current_task().parents]
        return [first, list(rest), named, parents]

    a, b, c, d = (one.enqueue(value) for value in ("a", "b" * 5000, None, ["d"]))
    last = many.using(after=[b, d]).enqueue([a, [b, (a, 7)]], "plain", **{"x/y~z": c, "again": a})
    assert last.parents() == [a.id, b.id, c.id, d.id]
    Worker(queue).run(burst=True)
    va, vb, vc = {"value": "a"}, {"value": "b" * 5000}, {"value": None}
    first, rest, named, parents = last.get_result(10)
    assert (first, rest, named) == ([va, [vb, [va, 7]]], ["plain"], {"x/y~z": vc, "again": va})
    assert parents == [[p.id, "one", "done", p.get_result(10)] for p in (a, b, c, d)]


def test_a_parent_that_failed_has_no_result(queue: TaskQueue) -> None:
    @queue.task(name="fails", max_attempts=1)
    def fails() -> None:
        raise ValueError("no")

    @queue.task(name="child")
    def child(value: Any, other: Any) -> list[Any]:
        return [value, other, [[str(p.state), p.result] for p in current_task().parents]]

    first, plain = fails.enqueue(), queue.enqueue("payload", start_in=3600)
    last = child.using(when="ended").enqueue(first, plain)
    queue.cancel(plain.id)
    Worker(queue).run(burst=True)
    assert last.get_result(10) == [None, None, [["abandoned", None], ["cancelled", None]]]


def test_arguments_of_bound_calls_and_many(queue: TaskQueue) -> None:
    @queue.task(name="double")
    def double(number: int) -> int:
        return 2 * number

    first = double.enqueue(1)
    calls = queue.enqueue_many([double.bind(first), double.using(priority=1).bind(5), double.bind(first)])
    last = queue.enqueue(double.bind(calls[0]), after=calls)
    Worker(queue).run(burst=True)
    assert [task.get_result(10) for task in (first, *calls, last)] == [2, 4, 10, 4, 8]
    assert last.parents() == [calls[0].id, calls[1].id, calls[2].id]


@pytest.mark.one_engine("decided in Python")
def test_a_task_inside_an_object_is_refused(queue: TaskQueue) -> None:
    function = queue.task(name="f")(lambda value: value)
    task = queue.enqueue("x")
    with pytest.raises(ValueError, match="Task"):
        function.enqueue({"task": task})
    with pytest.raises(ValueError, match="Task"):
        queue.enqueue(task)  # type: ignore[call-overload]
    assert len(queue.tasks()) == 1


@pytest.mark.one_engine("above the engines")
def test_results_that_are_too_large_as_arguments_fail_the_attempt(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(current, "MOST_RESULTS", 3000)

    @queue.task(name="large")
    def large() -> str:
        return "x" * 1000

    @queue.task(name="join", max_attempts=1)
    def join(parts: list[str]) -> int:
        return len(parts)

    parts = [large.enqueue() for _ in range(3)]
    few, many = join.enqueue(parts[:2]), join.enqueue(parts)
    Worker(queue).run(burst=True)
    assert few.get_result(10) == 2
    assert "MiB together" in (many.refresh().error or "")
    assert many.state == "abandoned"


def test_a_retried_child_notices_that_the_result_of_a_parent_is_pruned(queue: TaskQueue) -> None:
    @queue.task(name="one")
    def one() -> int:
        return 1

    @queue.task(name="next", max_attempts=1)
    def after(value: int) -> list[Any]:
        return [value, *(p.state for p in current_task().parents)]

    parent = one.enqueue()
    child = after.enqueue(parent)
    Worker(queue).run(burst=True)
    assert child.get_result(10) == [1, "done"]
    child_only = queue.retry(child.id)
    execute(queue.url, "UPDATE dbtaskqueue_task SET queue = 'kept' WHERE id = %s", child.id)
    assert queue.prune(0) == 0, "an unfinished child needs it"
    queue.cancel(child.id)
    assert queue.prune(0) == 1
    execute(queue.url, "UPDATE dbtaskqueue_task SET queue = 'default' WHERE id = %s", child.id)
    queue.retry(child.id)
    Worker(queue).run(burst=True)
    assert child_only.refresh().state == "abandoned"
    assert f"task {parent.id}" in (child.refresh().error or "")


@pytest.mark.one_engine("executors share the code above the engines")
@pytest.mark.parametrize("executor", ["thread", "process", "asyncio"])
def test_every_executor_fills_in_arguments_and_parents(queue: TaskQueue, executor: Any) -> None:
    functions = {function.name: function for function in (child_tasks.double, child_tasks.join, child_tasks.join_later)}
    double, *joins = (
        queue.functions.register(queue, function.__wrapped__, {"name": name}) for name, function in functions.items()
    )
    first = double.enqueue(1)
    last = [join.enqueue([first, 5], more=first) for join in joins]
    Worker(queue, executor=executor).run(burst=True)
    for task in last:
        assert task.get_result(10) == [[2, 5], 2, [[first.id, child_tasks.double.name, "done", 2]]]


# -- flows -----------------------------------------------------------------------------------------


def test_a_flow_is_stored_at_the_end_of_its_block(queue: TaskQueue) -> None:
    @queue.task(name="extract")
    def extract(day: str) -> str:
        return f"rows of {day}"

    @queue.task(name="load")
    def load(rows: str, *, table: str) -> str:
        return f"{rows} in {table}"

    before = queue.enqueue("before")
    with queue.flow() as flow:
        x = flow.add(extract.bind("today"), priority=5)
        y = flow.add(load.bind(x, table="t"), after=before, max_attempts=2)
        z = flow.add({"plain": 1}, after=[x, y], when="ended", key="k")
        with pytest.raises(TaskQueueError, match="block"):
            _ = y.task
        with pytest.raises(TaskQueueError, match="flow"):
            queue.enqueue("outside", after=x)
        assert len(queue.tasks()) == 1
    with pytest.raises(TaskQueueError, match="has ended"):
        flow.add("late")
    assert (x.task.id, y.task.id, z.task.id) == (before.id + 1, before.id + 2, before.id + 3)
    assert (y.task.parents(), z.task.parents()) == ([x.task.id, before.id], [x.task.id, y.task.id])
    assert (y.task.max_attempts, z.task.key, x.task.priority) == (2, "k", 5)
    after = queue.enqueue("after", after=z)
    assert after.parents() == [z.task.id]
    Worker(queue).run(lambda payload: payload, burst=True)
    assert y.task.get_result(10) == "rows of today in t"
    assert states(z.task, after) == ["done", "done"]


@pytest.mark.parametrize("how", ["in the block", "unknown parent", "bad payload", "unknown option"])
def test_a_flow_that_fails_stores_nothing(queue: TaskQueue, how: str) -> None:
    with pytest.raises((ZeroDivisionError, TaskNotFound, ValueError, TypeError)), queue.flow() as flow:
        x = flow.add("x")
        if how == "in the block":
            _ = 1 / 0
        flow.add(
            float("nan") if how == "bad payload" else "y", after=[x, *([10**9] if how == "unknown parent" else [])]
        )
        if how == "unknown option":
            flow.add("z", colour="red")
    assert queue.tasks() == []
    with pytest.raises(TaskQueueError):
        _ = x.task
    with queue.flow():
        pass
    assert queue.tasks() == []


@pytest.mark.one_engine("decided in Python")
def test_a_flow_refuses_an_option_where_it_is_given(queue: TaskQueue) -> None:
    with queue.flow() as flow:
        with pytest.raises(TypeError, match="got an unknown option 'colour'"):
            flow.add("x", colour="red")
        with pytest.raises(ValueError, match="when must be one of"):
            flow.add("x", when="success")
        flow.add("y")
    assert [task.payload for task in queue.tasks()] == ["y"]


@pytest.mark.one_engine("decided in Python")
def test_a_flow_that_has_failed_says_so(queue: TaskQueue) -> None:
    with pytest.raises(ZeroDivisionError), queue.flow() as flow:
        x = flow.add("x")
        _ = 1 / 0
    with pytest.raises(TaskQueueError, match="an exception ended the block"):
        _ = x.task
    with pytest.raises(TaskQueueError, match="an exception ended the block"):
        queue.enqueue("y", after=x)


@pytest.mark.one_engine("decided in Python")
def test_a_call_that_is_not_bound_is_explained(queue: TaskQueue) -> None:
    function = queue.task(name="app.work")(lambda *_: None)
    for act in (lambda: queue.enqueue(function), lambda: queue.schedule("s", function, every=60)):
        with pytest.raises(PayloadError, match="TaskFunction is not JSON; to enqueue a call of it, pass what its bind"):
            act()
    with pytest.raises(PayloadError, match=r"args\[0\].a: Task is not JSON; its result is filled in only where"):
        function.enqueue({"a": function.enqueue()})


@pytest.mark.one_engine("decided in Python")
def test_an_option_among_the_arguments_of_a_call_is_explained(queue: TaskQueue) -> None:
    function = queue.task(name="app.work")(lambda x: x)
    with pytest.raises(
        TypeError, match=r"app.work: got an unexpected .* 'after'; .* before the call: using\(after=…\)"
    ):
        function.enqueue(1, after=2)
    with pytest.raises(TypeError, match=r"^app\.work: missing a required argument: 'x'$"):
        function.enqueue()


@pytest.mark.one_engine("decided in Python")
def test_a_task_of_a_flow_cannot_wait_for_a_later_one(queue: TaskQueue) -> None:
    parents: list[Any] = [queue.enqueue("x")]
    with pytest.raises(ValueError, match="added before"), queue.flow() as flow:
        parents.append(flow.add("a", after=parents))
    with queue.flow() as one:
        a = one.add("a")
        with pytest.raises(TaskQueueError), queue.flow() as two:
            two.add("b", after=a)
    assert len(queue.tasks()) == 2


def test_a_flow_with_a_key_that_is_taken(queue: TaskQueue) -> None:
    first = queue.enqueue("first", key="k")
    with queue.flow() as flow:
        same = flow.add("same", key="k")
        twice = flow.add("twice", key="k")
        child = flow.add("child", after=[same, twice])
    assert (same.task.id, twice.task.id, same.task.deduplicated) == (first.id, first.id, True)
    assert child.task.blocked == (["parents"], 1, 1)
    end(queue, first)
    assert child.task.refresh().blocked is None


def test_a_flow_of_a_parent_that_has_failed(queue: TaskQueue) -> None:
    """All of it that needs the parent is cancelled as it is stored; handlers of that are due."""
    parent = queue.enqueue("parent")
    end(queue, parent, "abandoned")
    with queue.flow() as flow:
        a = flow.add("a", after=parent)
        b = flow.add("b", after=a)
        handler = flow.add("handler", after=[a, b], when="failed")
    assert states(a.task, b.task, handler.task) == ["cancelled", "cancelled", "pending"]
    assert handler.task.blocked is None
    queue.retry(parent.id)
    assert states(a.task, b.task, handler.task) == ["pending"] * 3
    assert all(map(is_blocked, (a.task, b.task, handler.task)))


# -- transactions that meet ------------------------------------------------------------------------

ENQUEUE = ["lock_parents", "insert_edge", "insert_gate", "mark_parents"]


@pytest.mark.parametrize("how", ["done", "abandoned", "cancelled"])
@pytest.mark.parametrize("query", ENQUEUE)
@pytest.mark.parametrize("after", [False, True])
def test_a_parent_ends_while_its_child_is_enqueued(
    queue: TaskQueue, other: TaskQueue, url: str, query: str, after: bool, how: str
) -> None:
    parent = queue.enqueue("parent")
    held = hold(other, parent)
    if how == "cancelled":
        held.release()
    acts = {
        "done": held.finish,
        "abandoned": lambda: held.fail("no", retry=False),
        "cancelled": lambda: other.cancel(parent.id),
    }
    with at_statement(url, query, acts[how], after=after):
        child = queue.enqueue("child", after=parent)
    assert states(parent, child) == [how, "pending" if how == "done" else "cancelled"]
    assert child.blocked is None


@pytest.mark.parametrize("query", ENQUEUE)
@pytest.mark.parametrize("batch", [1, 3])
def test_parents_end_in_a_batch_while_a_child_is_enqueued(
    queue: TaskQueue, other: TaskQueue, url: str, query: str, batch: int
) -> None:
    """The batch was claimed before its tasks had children."""
    parents = queue.enqueue_many(range(batch))
    held = other.fetch(batch, timeout=10)
    for task in held:
        task.start()
    worker = other._membership.id
    assert worker is not None
    ends = [End("finish", task.id, task.token, clock.now()) for task in held]
    with at_statement(url, query, lambda: other.store.exchange(worker, ends=ends)):
        child = queue.enqueue("child", after=parents)
    assert not is_blocked(child)
    assert states(*parents) == ["done"] * batch


@pytest.mark.parametrize("query", ["lock_final", "delete_tasks"])
@pytest.mark.parametrize("after", [False, True])
def test_a_parent_is_pruned_while_its_child_is_enqueued(
    queue: TaskQueue, other: TaskQueue, url: str, query: str, after: bool
) -> None:
    parent = queue.enqueue("parent")
    end(queue, parent)
    children: list[Task] = []

    def enqueue() -> None:
        with contextlib.suppress(TaskNotFound):
            children.append(other.enqueue("child", after=parent))

    with at_statement(url, query, enqueue, after=after):
        count = queue.prune(0)
    assert count == 1 - len(children)
    assert [child.refresh().state for child in children] == ["pending"] * len(children)


def test_two_last_parents_end_at_the_same_moment(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    one, two = queue.enqueue_many(["one", "two"])
    child = queue.enqueue("child", after=[one, two])
    first, second = hold(queue, one), hold(other, two)
    for query in ("open_edges", "close_gates"):
        with at_statement(url, query, second.finish):
            first.finish()
        assert not is_blocked(child)
        one, two = queue.enqueue_many(["one", "two"])
        child = queue.enqueue("child", after=[one, two])
        first, second = hold(queue, one), hold(other, two)


def test_a_triangle_whose_middle_is_cancelled_while_its_root_ends(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    """P -> X, P -> C, X -> C: the end of P and the cancel of X lock the same rows in different orders."""
    for query in ("lock_gates", "close_gates", "release_children"):
        root = queue.enqueue("P")
        middle = queue.enqueue("X", after=root)
        last = queue.enqueue("C", after=[root, middle])
        held = hold(queue, root)
        with at_statement(url, query, lambda id=middle.id: other.cancel(id)):  # type: ignore[misc]
            held.finish()
        assert states(root, middle, last) == ["done", "cancelled", "cancelled"]


def test_threads_end_parents_and_enqueue_children_at_the_same_time(queue: TaskQueue) -> None:
    """They share commits."""
    parents = queue.enqueue_many(range(8), priority=1)
    child = queue.enqueue("child", after=parents)
    held = queue.fetch(8, timeout=10)
    for task in held:
        task.start()
    ending = [Background(task.finish) for task in held]
    enqueuing = [Background(lambda parent=parent: queue.enqueue("more", after=parent)) for parent in parents]
    for thread in ending:
        thread.join()
    more = [thread.join() for thread in enqueuing]
    assert not is_blocked(child)
    assert not any(map(is_blocked, more))


def test_a_lost_answer_counts_a_parent_once(queue: TaskQueue) -> None:
    ran: list[str] = []
    one, two = queue.enqueue("one"), queue.enqueue("two", start_in=3600)
    child = queue.enqueue("child", after=[one, two])
    faults = Faults(queue)
    faults.lose, faults.stored, faults.times = (lambda asked: asked.get("ends")), True, 2
    Worker(queue).run(ran.append, burst=True)
    assert faults.lost == 2
    assert ran == ["one"]
    assert child.refresh().blocked == (["parents"], 1, 2)


def test_a_batch_whose_answer_is_lost_counts_its_parents_once(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(3))
    child = queue.enqueue("child", after=[*parents, queue.enqueue("x", start_in=3600)])
    held = queue.fetch(3, timeout=10)
    for task in held:
        task.start()
    worker = queue._membership.id
    assert worker is not None
    for flow in (1, 0, 1):  # with 0: it does not know of the children
        ends = [End("finish", task.id, task.token, clock.now(), flow=flow) for task in held]
        verdicts = queue.store.exchange(worker, ends=ends).ended
        assert [verdict.state for verdict in verdicts] == ["done"] * 3
    assert child.refresh().blocked == (["parents"], 1, 4)


def test_a_late_holder_does_not_count(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent)
    late = hold(queue, parent)
    worker = queue.store.workers()[0]
    assert queue.store.rescue(worker.id, worker.beat, "lost", clock.now(), lambda *_: clock.now())
    for verb in (late.finish, lambda: late.fail("late", retry=False)):
        with pytest.raises(LeaseLost):
            verb()
    assert child.refresh().blocked == (["parents"], 1, 1)


def test_a_rescue_after_the_last_attempt_is_an_end(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent", max_attempts=1)
    child = queue.enqueue("child", after=parent)
    held = hold(queue, parent)
    worker = queue.store.workers()[0]
    assert queue.store.rescue(worker.id, worker.beat, "lost", clock.now(), lambda *_: clock.now())
    assert states(parent, child) == ["abandoned", "cancelled"]
    with pytest.raises(LeaseLost):
        held.finish()


def test_the_join_of_a_diamond_runs_once_with_many_workers(queue: TaskQueue, url: str) -> None:
    ran: list[Any] = []
    with queue.flow() as flow:
        root = flow.add("root")
        middle = [flow.add(number, after=root) for number in range(12)]
        flow.add("join", after=middle)
    handles = [TaskQueue(url) for _ in range(4)]
    workers = [Background(lambda h=h: Worker(h, concurrency=2).run(ran.append, idle_timeout=1)) for h in handles]
    for worker in workers:
        worker.join(60)
    for handle in handles:
        handle.close()
    assert (ran[0], ran[-1], sorted(ran[1:-1])) == ("root", "join", list(range(12)))


def test_a_burst_runs_what_its_own_ends_unblock(queue: TaskQueue) -> None:
    ran: list[Any] = []

    def work(payload: Any) -> None:
        ran.append(payload)
        if payload == "root":  # the worker does not know of these children
            child = queue.enqueue("child", after=current_task().id)
            queue.enqueue("grandchild", after=child)

    queue.enqueue("root")
    Worker(queue).run(work, burst=True, batch=1)
    assert ran == ["root", "child", "grandchild"]


# -- a user's transaction --------------------------------------------------------------------------


def test_a_child_in_a_users_transaction_that_is_rolled_back(queue: TaskQueue, url: str) -> None:
    parent = queue.enqueue("parent")
    with users_connection(url) as connection:
        child = queue.enqueue("child", after=parent, connection=connection)
        connection.rollback()
    with pytest.raises(TaskNotFound):
        child.refresh()
    assert parent.children() == []
    end(queue, parent)
    keeps_rules(url)


def test_a_users_transaction_stays_open_while_the_parent_ends(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    parent = queue.enqueue("parent")
    held = hold(other, parent)
    with users_connection(url) as connection:
        child = queue.enqueue("child", after=parent, connection=connection)
        grandchild = queue.enqueue("grandchild", after=child, connection=connection)
        ending = start_and_wait_for_lock(url, held.finish)
        assert ending.runs
        connection.commit()
        ending.join()
    assert not is_blocked(child)
    assert is_blocked(grandchild)
    end(queue, child)
    assert not is_blocked(grandchild)


@pytest.mark.engine("postgresql", "mariadb")
def test_a_prune_does_not_wait_for_a_users_transaction(queue: TaskQueue, url: str) -> None:
    """On SQLite it has to wait for each writer."""
    parent, other = queue.enqueue_many(["parent", "other"])
    end(queue, parent)
    end(queue, other)
    with users_connection(url) as connection:
        queue.enqueue("child", after=parent, connection=connection)
        pruning = start_and_wait_for_lock(url, lambda: queue.prune(0))
        assert not pruning.runs, "the prune waits for the lock"
        assert pruning.join() == 1
        connection.rollback()
    assert queue.prune(0) == 1


# -- many ------------------------------------------------------------------------------------------


def test_ten_thousand_parents_of_which_half_are_abandoned(queue: TaskQueue) -> None:
    good, bad = queue.lane("good"), queue.lane("bad")
    parents = good.enqueue_many([0] * 5000) + bad.enqueue_many([0] * 5000)
    done, ended, failed = (queue.enqueue(when, after=parents, when=when) for when in WHENS)
    assert bad.purge() == 5000
    assert states(done, ended, failed) == ["cancelled", "pending", "pending"]
    assert ended.blocked == (["parents"], 5000, 10_000)
    Worker(good, concurrency=100).run(lambda payload: None, max_tasks=4999)
    assert [task.refresh().blocked for task in (ended, failed)] == [(["parents"], 1, 10_000)] * 2
    Worker(good).run(lambda payload: None, burst=True)
    assert states(done, ended, failed) == ["cancelled", "pending", "pending"]
    assert not is_blocked(ended)
    assert not is_blocked(failed)


def test_a_chain_of_a_thousand_that_is_cancelled_at_its_root(queue: TaskQueue) -> None:
    with queue.flow() as flow:
        links = [flow.add("root")]
        for number in range(1000):
            links.append(flow.add(number, after=links[-1]))
        handler = flow.add("handler", after=links[-1], when="failed")
    queue.cancel(links[0].task.id)
    stats = queue.stats()
    assert (stats.cancelled, stats.pending, stats.blocked) == (1001, 1, 0)
    assert not is_blocked(handler.task)
    assert queue.retry(links[0].task.id).state == "pending"
    assert queue.stats().blocked == 1001


@pytest.mark.parametrize("how", ENDS)
def test_three_thousand_children_take_several_transactions(queue: TaskQueue, how: str) -> None:
    root = queue.enqueue("root")
    queue.lane("children").enqueue_many(range(3000), after=root)
    grandchild = queue.enqueue("last", after=queue.lane("children").tasks(limit=3000), when="ended")
    end(queue, root, how)
    stats = queue.lane("children").stats()
    expected = (3000, 0, 0) if how == "done" else (0, 3000, 0)
    assert (stats.pending, stats.cancelled, stats.blocked) == expected
    assert is_blocked(grandchild) == (how == "done")


def test_children_that_an_end_leaves_undecided_are_decided_by_any_worker(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the process were killed between the two transactions."""
    root = queue.enqueue("root")
    queue.lane("children").enqueue_many(range(1500), after=root)
    monkeypatch.setattr(queue.store, "decide_children", lambda now: 0)
    end(queue, root)
    assert other.lane("children").stats().blocked == 500
    with pytest.raises(InvalidTransition):
        queue.enqueue("more", before=other.lane("children").tasks(state="pending", limit=1500)[-1])
    queue.retry(root.id)  # those that were released wait again
    assert other.lane("children").stats().blocked == 1500
    end(queue, root)
    assert other.fetch(timeout=0) == []  # maintains
    assert other.lane("children").stats().blocked == 0


def test_parents_that_another_version_has_ended_are_found(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(["done", "cancelled"])
    children = [queue.enqueue("child", after=parent) for parent in parents]
    for parent, state in zip(parents, ("done", "cancelled"), strict=True):
        execute(
            queue.url,
            "UPDATE dbtaskqueue_task SET state = %s, finished_at = created_at, token = token + 1 WHERE id = %s",
            *(state, parent.id),
        )
    assert all(map(is_blocked, children))
    assert queue.store.decide_children(clock.now(), search=True) == 1
    assert states(*children) == ["pending", "cancelled"]
    assert not any(map(is_blocked, children))


# -- cancel, retry, purge, prune -------------------------------------------------------------------


def test_a_cancelled_child_leaves_its_parent_alone(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent)
    queue.cancel(child.id)
    end(queue, parent)
    assert states(parent, child) == ["done", "cancelled"]
    assert queue.retry(child.id).blocked is None


def test_the_retry_of_a_cancelled_child_waits_for_its_parents(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent)
    queue.cancel(child.id)
    assert queue.retry(child.id).blocked == (["parents"], 1, 1)
    assert due(queue) == [parent.id]


@pytest.mark.parametrize("how", ["abandoned", "cancelled"])
def test_retry_of_the_root_revives_exactly_what_was_cancelled_because_of_it(queue: TaskQueue, how: str) -> None:
    with queue.flow() as flow:
        root = flow.add("root")
        child = flow.add("child", after=root)
        grandchild = flow.add("grandchild", after=[child, root], key="g")
        by_operator = flow.add("by operator", after=root)
        below = flow.add("below", after=by_operator)
        handler = flow.add("handler", after=child, when="failed")
    queue.cancel(by_operator.task.id)
    end(queue, root.task, how)
    family = (child, grandchild, by_operator, below, handler)
    assert states(*(each.task for each in family)) == ["cancelled"] * 4 + ["pending"]
    with pytest.raises(InvalidTransition, match=f"task {child.task.id}"):
        queue.retry(grandchild.task.id)
    with pytest.raises(InvalidTransition, match=f"task {root.task.id}"):
        queue.retry(child.task.id)
    queue.retry(root.task.id)
    assert states(*(each.task for each in family)) == ["pending", "pending", "cancelled", "cancelled", "pending"]
    assert [is_blocked(each.task) for each in family] == [True, True, False, False, True]
    assert (grandchild.task.blocked, child.task.error) == ((["parents"], 2, 2), None)
    Worker(queue).run(lambda payload: payload, burst=True)
    assert states(*(each.task for each in family)) == ["done", "done", "cancelled", "cancelled", "cancelled"]


def test_a_child_of_two_failed_parents_waits_for_both(queue: TaskQueue) -> None:
    one, two = queue.enqueue_many(["one", "two"])
    child = queue.enqueue("child", after=[one, two])
    below = queue.enqueue("below", after=child)
    queue.cancel(one.id)
    end(queue, two, "abandoned")
    queue.retry(one.id)
    assert states(child, below) == ["cancelled", "cancelled"]
    end(queue, one)
    assert states(child) == ["cancelled"]
    queue.retry(two.id)
    assert states(child, below) == ["pending", "pending"]
    assert child.blocked == (["parents"], 1, 2)
    end(queue, two)
    assert not is_blocked(child)


def test_retry_revives_a_diamond(queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    sides = queue.enqueue_many(["a", "b"], after=root)
    join = queue.enqueue("join", after=sides)
    for _ in range(2):
        queue.cancel(root.id)
        assert states(*sides, join) == ["cancelled"] * 3
        queue.retry(root.id)
        assert states(*sides, join) == ["pending"] * 3
        assert join.blocked == (["parents"], 2, 2)


def test_a_revived_child_whose_key_is_taken_stays_cancelled(queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    child = queue.enqueue("child", after=root, key="k")
    queue.cancel(root.id)
    new = queue.enqueue("new", key="k")
    queue.retry(root.id)
    assert states(child, new) == ["cancelled", "pending"]
    queue.cancel(new.id)
    assert queue.retry(child.id).blocked == (["parents"], 1, 1)


def test_of_revived_tasks_with_the_same_key_one_is_revived(queue: TaskQueue) -> None:
    """The retried task is the first to get its key."""
    root, own = queue.enqueue_many(["root", "own"])
    own = queue.enqueue("own", key="own")
    queue.cancel(root.id)
    queue.cancel(own.id)
    same = [queue.enqueue("x", after=root, key="k") for _ in range(3)]
    child = queue.enqueue("child", after=own, key="own")
    assert states(*same, child) == ["cancelled"] * 4
    queue.retry(root.id)
    assert sorted(states(*same)) == ["cancelled", "cancelled", "pending"]
    queue.retry(own.id)
    assert states(own, child) == ["pending", "cancelled"]


@pytest.mark.parametrize("situation", ["blocked", "pending", "reserved", "running", "failed", "done", "cancelled"])
def test_retry_of_a_done_parent(queue: TaskQueue, situation: str) -> None:
    parent = queue.enqueue("parent")
    second = queue.enqueue("second", start_in=3600) if situation == "blocked" else None
    child = queue.enqueue("child", after=[parent, *([second] if second else [])], retry=RetryPolicy(delay=3600))
    end(queue, parent, result="first")
    held = None
    if situation == "cancelled":
        queue.cancel(child.id)
    elif situation not in ("blocked", "pending"):
        held = hold(queue, child, start=situation != "reserved")
    if held is not None and situation in ("failed", "done"):
        held.fail("no luck") if situation == "failed" else held.finish()
    if situation in ("running", "failed"):
        with pytest.raises(InvalidTransition, match=f"task {child.id}"):
            queue.retry(parent.id)
        assert states(parent, child) == ["done", situation]
        return
    token = child.refresh().token
    queue.retry(parent.id)
    assert states(parent) == ["pending"]
    if situation in ("done", "cancelled"):
        assert states(child) == [situation]
        end(queue, parent)
        assert states(child) == [situation]
        assert queue.retry(child.id).blocked is None
        assert due(queue) == [child.id]
        return
    assert states(child) == ["pending"]
    assert child.blocked == (["parents"], 2 if second else 1, 2 if second else 1)
    assert child.token == token + (situation == "reserved")
    if held is not None:
        assert held.start() is False
    end(queue, parent)
    assert is_blocked(child) == (second is not None)


def test_retry_of_a_done_parent_revives_a_handler_of_failures(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    handler = queue.enqueue("handler", after=parent, when="failed")
    end(queue, parent)
    assert states(handler) == ["cancelled"]
    with pytest.raises(InvalidTransition, match="done"):
        queue.retry(handler.id)
    queue.retry(parent.id)
    assert states(handler) == ["pending"]
    end(queue, parent, "abandoned")
    assert not is_blocked(handler)


def test_retry_of_a_failed_parent_changes_no_child(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.enqueue("child", after=parent)
    end(queue, parent, "failed")
    queue.retry(parent.id)
    assert child.refresh().blocked == (["parents"], 1, 1)


def test_purge_of_the_queue_of_the_parent_decides_children_in_other_queues(queue: TaskQueue) -> None:
    mine, theirs = queue.lane("mine"), queue.lane("theirs")
    parent = mine.enqueue("parent")
    own = mine.enqueue("own", after=parent)
    child = theirs.enqueue("child", after=own)
    below = theirs.enqueue("below", after=child)
    handler = theirs.enqueue("handler", after=own, when="failed")
    running = hold(mine, mine.enqueue("running"))
    child_of_running = theirs.enqueue("x", after=running)
    assert mine.purge() == 3
    assert states(parent, own, running) == ["abandoned"] * 3
    assert states(child, below, child_of_running, handler) == ["cancelled", "cancelled", "cancelled", "pending"]
    assert not is_blocked(handler)
    assert theirs.purge() == 1


def test_prune_keeps_parents_that_an_unfinished_child_needs(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(4))
    blocker = queue.enqueue("blocker", start_in=3600)
    blocked = queue.lane("x").enqueue("blocked", after=[parents[0], blocker])
    failed = queue.lane("x").enqueue("failed", after=parents[1], retry=RetryPolicy(delay=3600))
    done = queue.lane("x").enqueue("done", after=parents[2])
    for parent in parents:
        end(queue, parent)
    end(queue, failed, "failed")
    end(queue, done)
    assert queue.prune(0) == 2
    assert [task.id for task in queue.tasks(state="done")] == [parents[1].id, parents[0].id]
    assert done.refresh().parents() == [parents[2].id]
    queue.lane("x").purge()
    queue.purge()
    states_to_prune = ("done", "cancelled", "abandoned")
    assert queue.prune(0, states=states_to_prune) == 3
    assert queue.lane("x").prune(0, states=states_to_prune) == 3
    assert blocked.id not in [task.id for task in queue.lane("x").tasks()]
    for table in ("edge", "gate", "undecided", "expiry", "task"):
        assert execute(queue.url, f"SELECT count(*) FROM dbtaskqueue_{table}") == [(0,)]


def test_a_child_whose_failed_parent_was_pruned_may_be_retried(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(["a", "b"])
    child = queue.lane("x").enqueue("child", after=parents[0])
    handler = queue.lane("x").enqueue("handler", after=parents[1], when="failed")
    for parent in parents:
        end(queue, parent, "abandoned")
    queue.lane("x").cancel(handler.id)
    assert queue.prune(0, states=["abandoned"]) == 2
    assert queue.retry(child.id).blocked is None
    assert queue.retry(handler.id).blocked is None


def test_a_child_in_a_paused_queue(queue: TaskQueue) -> None:
    parent, lane = queue.enqueue("parent"), queue.lane("paused")
    child = lane.enqueue("child", after=parent)
    lane.pause()
    end(queue, parent)
    assert (states(child), is_blocked(child), due(lane)) == (["pending"], False, [])
    lane.resume()
    assert due(lane) == [child.id]


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
@pytest.mark.one_engine("an executor never touches a database")
def test_a_suspended_parent_has_not_ended(queue: TaskQueue, tmp_path: Path) -> None:
    file, go = tmp_path / "notes", tmp_path / "go"
    parent = queue.enqueue({"do": "wait_for", "file": str(file), "go": str(go)})
    child = queue.enqueue({"do": "return", "value": 1}, after=parent)
    worker = Worker(queue, executor="process")
    running = Background(lambda: worker.run(child_tasks.act, max_tasks=2))
    until(file.exists, what="the start of the parent")
    queue.suspend(parent.id)
    assert is_blocked(child)
    queue.continue_(parent.id)
    go.touch()
    running.join(60)
    assert child.get_result(30) == 1


def test_a_worker_is_woken_when_the_last_parent_ends(queue: TaskQueue, other: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    child = queue.lane("x").enqueue("child", after=parent)
    fetching = Background(lambda: other.lane("x").fetch(timeout=60))
    end(queue, parent)
    assert [task.id for task in fetching.join(30)] == [child.id]


# -- what it costs ---------------------------------------------------------------------------------


def test_plain_tasks_take_no_extra_statement(queue: TaskQueue, engine: str) -> None:
    queue.enqueue("first")
    [held] = queue.fetch(timeout=10)
    held.start()
    with counted_statements() as enqueuing:
        queue.enqueue("plain")
        queue.enqueue_many(["a", "b"])
    with counted_statements() as finishing:
        held.finish()
    expected = {
        "sqlite": {"insert_task": 1, "next_task_id": 1},  # many at once: without the name of a query
        "postgresql": {"enqueue_one": 1, "enqueue_many": 1},
        "mariadb": {"insert_task": 2},
    }
    assert dict(enqueuing) == expected["postgresql" if engine == "pgbouncer" else engine]
    assert {name: count for name, count in finishing.items() if name != "start_transaction"} == {"finish": 1}
