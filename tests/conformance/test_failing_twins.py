"""Two designs that lose a child on PostgreSQL, beside ours, in the same tests: see tests/twins.py."""

from __future__ import annotations

from typing import Any

import pytest
from flow_rules import keeps_rules
from interleaving import start_and_wait_for_lock
from twins import TWINS, installed

from dbtaskqueue import TaskQueue
from dbtaskqueue._store.contract import End
from dbtaskqueue._system import clock

pytestmark = pytest.mark.engine("postgresql")

COUNTER, EDGES = TWINS


def end_in(tx: Any, queue: TaskQueue, id: int, token: int) -> None:
    """End a task in a transaction that stays open."""
    store: Any = queue.store
    parents: dict[int, Any] = {}
    store._end(tx, 0, End("finish", id, token, clock.now()), parents)
    if parents:
        store._decide(tx, parents, clock.now())


@pytest.mark.parametrize("twin", [None, COUNTER])
def test_two_last_parents_end_in_two_transactions_that_overlap(
    queue: TaskQueue, other: TaskQueue, url: str, twin: str | None
) -> None:
    """Each ends while the other's end is not committed. The second one must wait for the first one."""
    queue.enqueue_many(["one", "two"])
    held = queue.fetch(2, timeout=10)
    child = queue.enqueue("child", after=held)
    for task in held:
        assert task.start()
    one, two = held
    with installed(twin):
        with queue.store._connections.own_transaction() as tx:  # type: ignore[attr-defined]
            end_in(tx, queue, one.id, one.token)
            second = start_and_wait_for_lock(url, lambda: end_alone(other, two.id, two.token))
            assert second.runs == (twin is None), "the twin does not wait"
        second.join()
    assert [str(task.refresh().state) for task in held] == ["done", "done"]
    is_lost = child.refresh()._record.blocked == 1
    assert is_lost == (twin is not None)
    if twin is None:
        keeps_rules(url)
        assert [task.id for task in queue.fetch(timeout=0)] == [child.id]


def end_alone(queue: TaskQueue, id: int, token: int) -> None:
    with queue.store._connections.own_transaction() as tx:  # type: ignore[attr-defined]
        end_in(tx, queue, id, token)


@pytest.mark.parametrize("twin", [None, EDGES])
def test_a_last_parent_ends_while_a_child_is_being_stored(
    queue: TaskQueue, other: TaskQueue, url: str, twin: str | None
) -> None:
    """Its end waits for the lock of the transaction that stores the child. Then it must see the child."""
    queue.enqueue_many(["one", "two"])
    one, two = queue.fetch(2, timeout=10)
    assert one.start()
    assert two.start()
    one.finish()
    with installed(twin):
        with other.store._connections.own_transaction() as tx:  # type: ignore[attr-defined]
            child = other.enqueue("child", after=[one, two], connection=tx.connection)
            ending = start_and_wait_for_lock(url, lambda: end_alone(queue, two.id, two.token))
            assert ending.runs
        ending.join()
    assert str(two.refresh().state) == "done"
    is_lost = child.refresh()._record.blocked == 1
    assert is_lost == (twin is not None)
    if twin is None:
        keeps_rules(url)
