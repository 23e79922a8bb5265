"""The tree of a task's parents and children, lists of blocked tasks, and what is read of many tasks at once."""

from __future__ import annotations

from dbtaskqueue import TaskQueue
from dbtaskqueue.monitoring.family import Node, tree
from dbtaskqueue.states import TaskState
from dbtaskqueue.task import blocked_among


def shape(node: Node) -> tuple[object, ...]:
    """Return a tree as its ids."""
    return (node.id, *map(shape, node.nodes))


def test_a_tree_of_parents_and_children(queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    left, right = (queue.enqueue(side, after=root) for side in ("left", "right"))
    last = queue.lane("other").enqueue("last", after=[right, left])
    found = tree(queue.store, last.id, "parents", depth=9, width=9, most=99)
    assert shape(found) == (last.id, (right.id, (root.id,)), (left.id, (root.id,)))
    assert [node.again for _, node in found.walk()] == [False] * 4, "the root has no parents that are elsewhere"
    found = tree(queue.store, root.id, "children", depth=9, width=9, most=99)
    assert shape(found) == (root.id, (left.id, (last.id,)), (right.id, (last.id,)))
    assert [depth for depth, _ in found.walk()] == [0, 1, 0, 1]
    assert found.nodes[0].nodes[0].task is not None
    assert found.nodes[0].nodes[0].task.queue == "other"


def test_a_tree_is_cut_by_depth_width_and_number(queue: TaskQueue) -> None:
    root = queue.enqueue("root")
    children = queue.enqueue_many(range(5), after=root)
    queue.enqueue_many(range(5), after=children[0])

    def cut(**limits: int) -> tuple[int, bool]:
        found = tree(queue.store, root.id, "children", **{"depth": 9, "width": 9, "most": 99, **limits})
        nodes = [found, *(node for _, node in found.walk())]
        return len(nodes), any(node.more for node in nodes)

    assert cut() == (11, False)
    assert cut(depth=2) == (11, False)
    assert cut(depth=1) == (6, True)
    assert cut(width=4) == (9, True)
    assert cut(most=11) == (11, False)
    assert cut(most=10) == (10, True)


def test_open_parents_come_first_if_not_all_are_shown(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(8))
    for task in queue.fetch(7, timeout=10):
        task.start()
        task.finish()
    child = queue.enqueue("child", after=parents)
    found = tree(queue.store, child.id, "parents", depth=1, width=3, most=99)
    assert shape(found) == (child.id, *((task.id,) for task in (parents[0], parents[1], parents[7])))
    assert found.more


def test_a_pruned_task_has_no_relatives(queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    queue.cancel(task.id)
    queue.prune(0)
    found = tree(queue.store, task.id, "parents", depth=1, width=1, most=9)
    assert (found.task, found.nodes, found.more) == (None, [], False)


def test_blocked_tasks_are_listed_newest_first(queue: TaskQueue) -> None:
    parent = queue.enqueue("parent")
    blocked = queue.enqueue_many(range(4), after=parent)
    queue.enqueue("free")
    queue.lane("other").enqueue("elsewhere", after=parent)

    def ids(state: TaskState | None = None, limit: int = 9, before: int | None = None) -> list[int]:
        return [task.id for task in queue.store.tasks("default", state, limit, before, blocked=True)]

    newest_first = [task.id for task in reversed(blocked)]
    assert ids() == ids(TaskState.PENDING) == newest_first
    assert ids(limit=2) == newest_first[:2]
    assert ids(before=blocked[2].id) == newest_first[2:]
    assert ids(TaskState.FAILED) == []
    queue.cancel(blocked[0].id)
    assert ids() == newest_first[:-1]


def test_many_tasks_are_read_at_once(queue: TaskQueue) -> None:
    parents = queue.enqueue_many(range(2))
    children = queue.enqueue_many(range(2100), after=parents)
    ids = [task.id for task in children]
    assert set(blocked_among(queue.store, [*ids, parents[0].id, 10**9])) == set(ids)
    assert {(each.open, each.total) for each in blocked_among(queue.store, ids).values()} == {(2, 2)}
    found = queue.store.summaries([*ids, 10**9])
    assert set(found) == set(ids)
    assert {(each.queue, each.state, bool(each.blocked)) for each in found.values()} == {("default", "pending", True)}
    assert (blocked_among(queue.store, []), queue.store.summaries([])) == ({}, {})
