"""The parents and children of a task, as a tree of limited size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .._store.contract import HAS_CHILDREN, HAS_PARENTS, Store, Summary

Direction = Literal["parents", "children"]


@dataclass
class Node:
    """A task in a tree. ``task`` is None if it was pruned.

    ``nodes``: its parents or children. ``more``: it has others, which are not in the tree. ``again``: the tree has this
    task twice, and its parents or children are at the other place.
    """

    id: int
    task: Summary | None = None
    nodes: list[Node] = field(default_factory=list)
    more: bool = False
    again: bool = False

    def to_plain(self, direction: Direction) -> dict[str, Any]:
        """Return the tree as JSON values."""
        task = self.task
        return {
            "id": self.id,
            "queue": task and task.queue,
            "state": task and task.state,
            "function": task and task.function,
            "blocked": bool(task and task.blocked),
            "again": self.again,
            direction: [node.to_plain(direction) for node in self.nodes],
            f"more_{direction}": self.more,
        }

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """Yield the tasks below this one with their depth, each before its own parents or children."""
        for node in self.nodes:
            yield depth, node
            yield from node.walk(depth + 1)


def tree(store: Store, id: int, direction: Direction, *, depth: int, width: int, most: int) -> Node:
    """Return a task with its parents or children, and so on through the generations.

    The tree has at most ``depth`` generations, ``width`` parents or children of each task, and ``most`` tasks. Nearer
    generations have priority. So do parents that have not ended, if there are more than ``width``.
    """
    root = Node(id, store.summaries([id]).get(id))
    seen = {id}
    level = [root]
    flag = HAS_PARENTS if direction == "parents" else HAS_CHILDREN
    for generation in range(depth + 1):
        below: list[Node] = []
        for node in level:
            if node.task is None or not node.task.flow & flag:
                continue
            room = min(width, most - len(seen)) if generation < depth else 0
            found, node.more = ([], True) if room <= 0 else _relatives(store, node.id, direction, room)
            for each in found:
                node.nodes.append(Node(each, again=each in seen))
                if each not in seen:
                    seen.add(each)
                    below.append(node.nodes[-1])
        _read(store, [node for parent in level for node in parent.nodes], flag)
        level = below
    return root


def _read(store: Store, nodes: Sequence[Node], flag: int) -> None:
    found = store.summaries(list({node.id for node in nodes}))
    for node in nodes:
        node.task = found.get(node.id)
        node.again = node.again and node.task is not None and bool(node.task.flow & flag)


def _relatives(store: Store, id: int, direction: Direction, limit: int) -> tuple[list[int], bool]:
    """Return at most ``limit`` parents or children, and whether there are more."""
    if direction == "children":
        children = [edge.child for edge in store.children(id, 0, limit + 1)]
        return children[:limit], len(children) > limit
    edges = store.parents(id, limit + 1)
    if len(edges) <= limit:
        return [edge.parent for edge in edges], False
    chosen = store.open_parents(id, limit)
    known = {edge.parent for edge in chosen}
    chosen += [edge for edge in edges if edge.parent not in known][: limit - len(chosen)]
    return [edge.parent for edge in sorted(chosen, key=lambda edge: edge.place)], True
