"""The invariants of dependencies, checked in the tables of a database: ``no_orphan`` and what it stands on."""

from __future__ import annotations

from collections import Counter

from engines import execute

FINAL = ("done", "cancelled", "abandoned")


def broken_rules(url: str) -> list[str]:
    """Return what is wrong with the parents and children of a database in which no transaction is open.

    A gate counts its open edges. An edge is open if, and only if, its parent has not ended. An unfinished task is
    blocked if, and only if, its gate is open.
    """
    states = dict(execute(url, "SELECT id, state FROM dbtaskqueue_task"))
    edges = execute(url, "SELECT parent, child, met FROM dbtaskqueue_edge")
    gates = {
        task: (total, left) for task, total, left in execute(url, "SELECT task, total, open FROM dbtaskqueue_gate")
    }
    undecided = {row[0] for row in execute(url, "SELECT parent FROM dbtaskqueue_undecided")}
    tasks = execute(url, "SELECT id, state, blocked FROM dbtaskqueue_task")
    found = []
    for parent, child, met in edges:
        is_over = states.get(parent, "done") in FINAL
        if (met is None) == is_over and parent not in undecided:
            found.append(f"the edge {parent} -> {child} is {met}, but its parent is {states.get(parent)}")
    still_open = Counter(child for _, child, met in edges if met is None)
    total = Counter(child for _, child, _ in edges)
    for task, gate in gates.items():
        if gate != (total[task], still_open[task]):
            found.append(f"the gate of {task} is {gate}, its edges are {total[task], still_open[task]}")
    for task, state, blocked in tasks:
        is_open = gates.get(task, (0, 0))[1] > 0
        if state not in FINAL and bool(blocked & 1) != is_open:
            found.append(f"task {task} is {state}, blocked is {blocked}, its gate is {gates.get(task)}")
    return found


def keeps_rules(url: str) -> bool:
    """Fail with what is wrong; see ``broken_rules``."""
    assert broken_rules(url) == []
    return True
