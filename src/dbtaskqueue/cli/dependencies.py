"""The commands why and tree: what a task waits for, and what waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from .._store.contract import Summary
from .._system import clock
from ..monitoring.family import Direction, Node, tree
from ..monitoring.tasks import error_line
from ..overview import name_of
from ..reasons import state_words
from ..states import DONE, FINAL, RESERVED, RUNNING
from ..task import Blocked, Task, blocked_among, look_up
from .completion import task_ids
from .options import json_option, open_queue, url_option
from .output import counted, escaped, fields, print_json, table

_MOST = 200
"""The most tasks that a tree shows in each direction."""


@click.command()
@click.argument("id", type=int, shell_complete=task_ids)
@json_option
@url_option
@click.pass_obj
def why(url: str | None, id: int, json: bool) -> None:
    """Explain why a task does not run.

    Prints one line for each reason. If there is none, prints what the task does.
    """
    with open_queue(url) as task_queue:
        task = task_queue.get(id)
        reasons = task_queue.why(id)
    if json:
        print_json([reason._asdict() for reason in reasons])
    elif reasons:
        click.echo(f"task {id} is {task.state}:")
        fields((f"  {reason.code}", reason.text) for reason in reasons)
    else:
        click.echo(escaped(f"task {id} {_standing(task)}"))


def _standing(task: Task) -> str:
    """Return in words what a task does that has no reason to wait."""
    if task.state == RUNNING:
        return "is running, but suspended" if task.suspended else "is running"
    if task.state == RESERVED:
        return f"is reserved by worker {task.worker}, which will start it"
    if task.state == DONE:
        return "is done"  # its error, if it has one, is that of an earlier attempt
    if task.state in FINAL:
        error = error_line(task.error or "")
        return f"is {task.state}: {error}" if error else f"is {task.state}"
    return f"is {task.state}, and a worker can start it now"


# -- tree ------------------------------------------------------------------------------------------


@click.command("tree")
@click.argument("id", type=int, shell_complete=task_ids)
@click.option(
    "--depth", type=click.IntRange(1, 100), default=5, metavar="NUMBER", help="Show this many generations up and down."
)
@click.option(
    "--width",
    type=click.IntRange(1, _MOST),
    default=10,
    metavar="NUMBER",
    help="Show at most this many parents and this many children of each task.",
)
@json_option
@url_option
@click.pass_obj
def show_tree(url: str | None, id: int, depth: int, width: int, json: bool) -> None:
    """Show the parents and children of a task, with their states.

    Parents of a parent, and children of a child, are indented below it. At most 200 parents and 200 children are shown.
    """
    with open_queue(url) as task_queue:
        store = task_queue.store
        look_up(store, id)
        parents = tree(store, id, "parents", depth=depth, width=width, most=_MOST)
        children = tree(store, id, "children", depth=depth, width=width, most=_MOST)
        ids = [id, *(node.id for root in (parents, children) for _, node in root.walk())]
        blocked = blocked_among(store, ids)
    if json:
        print_json({**parents.to_plain("parents"), **children.to_plain("children")})
        return
    rows = [_row(parents, 0, parents.task, blocked)]
    rows += _section("parents", parents, blocked)
    rows += _section("children", children, blocked)
    names = ("task", "state", "queue", "function")
    has_queues = len({row[2] for row in rows} - {""}) > 1
    table(names if has_queues else names[:2] + names[3:], [row if has_queues else row[:2] + row[3:] for row in rows])


Row = tuple[str, str, str, str]


def _section(title: Direction, root: Node, blocked: dict[int, Blocked]) -> Iterator[Row]:
    if not root.nodes:
        return
    yield title, "", "", ""
    yield from _rows(root, 1, root.task, blocked)


def _rows(node: Node, depth: int, root: Summary | None, blocked: dict[int, Blocked]) -> Iterator[Row]:
    for each in node.nodes:
        yield _row(each, depth, root, blocked)
        yield from _rows(each, depth + 1, root, blocked)
    if node.more:
        yield f"{'  ' * depth}… more", "", "", ""


def _row(node: Node, depth: int, root: Summary | None, blocked: dict[int, Blocked]) -> Row:
    number, task = f"{'  ' * depth}{node.id}", node.task
    if task is None:
        return number, "no longer exists", "", ""
    waits = node.id in blocked and task.state not in FINAL  # a done child of a parent that was retried waits no more
    state = blocked_words(blocked[node.id]) if waits else state_words(task, clock.now())
    name = name_of(task.function, task.command)
    return number, state, task.queue, f"{name} (shown elsewhere)" if node.again else name


def blocked_words(blocked: Blocked) -> str:
    """Return what a blocked task waits for: ``waits for 3 of 8 tasks``."""
    return f"waits for {blocked.open:,} of {_number_of_tasks(blocked.total)}"


def _number_of_tasks(number: int) -> str:
    return counted(number) if number < 1000 else f"{number:,} tasks"
