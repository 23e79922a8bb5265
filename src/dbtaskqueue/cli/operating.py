"""The commands that change tasks and queues: retry, cancel, suspend, continue, pause, resume, purge, prune."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterator

import click

from .._formats.quantities import duration
from ..checks import listed
from ..errors import InvalidTransition, TaskNotFound
from ..queue import TaskQueue
from ..states import FINAL, UNFINISHED
from .options import checked, confirm, open_queue, queue_option, url_option, yes_option
from .output import counted, progress
from .queues import refuse_unknown, warn_of_unknown


@click.command()
@click.argument("id", type=int)
@url_option
@click.pass_obj
def retry(url: str | None, id: int) -> None:
    """Run a failed or finished task again, now."""
    with open_queue(url) as task_queue:
        task = task_queue.retry(id)
    click.echo(f"task {id} is {task.state}")


@click.command()
@click.argument("id", type=int)
@click.option(
    "--tree", is_flag=True, help="Also cancel unfinished parents, and their parents, if no other task needs them."
)
@url_option
@click.pass_obj
def cancel(url: str | None, id: int, tree: bool) -> None:
    """Cancel a task; request the cancellation of a running one.

    Its children that wait for it to be done are also cancelled.
    """
    with open_queue(url) as task_queue:
        task_queue.cancel(id)
        task = task_queue.get(id)
        others = _cancel_parents(task_queue, id) if tree else {}
    click.echo(f"task {id}: cancellation requested" if task.cancel_requested else f"task {id} is {task.state}")
    for what, is_cancelled in (("cancelled", True), ("requested the cancellation of", False)):
        ids = [str(other) for other, done in others.items() if done == is_cancelled]
        if ids:
            click.echo(f"{what} {counted(len(ids), 'parent')} that no other task needs: {listed(ids)}")


def _cancel_parents(task_queue: TaskQueue, id: int) -> dict[int, bool]:
    """Cancel the unfinished parents of a cancelled task, and their parents, if no other unfinished task needs them.

    Returns what ``TaskQueue.cancel`` returned for each. If a child is enqueued meanwhile, it is cancelled, too.
    """
    cancelled = {id: True}
    left = [id]
    while left:
        child = left.pop()
        parents = task_queue.get(child).parents()
        standings = task_queue.store.standings(parents) if parents else {}
        for parent in parents:
            if parent in cancelled or parent not in standings or standings[parent].state in FINAL:
                continue
            if _is_needed(task_queue, parent, cancelled):
                continue
            with contextlib.suppress(InvalidTransition, TaskNotFound):  # it has ended meanwhile
                cancelled[parent] = task_queue.cancel(parent)
                left.append(parent)
    del cancelled[id]
    return cancelled


def _is_needed(task_queue: TaskQueue, parent: int, cancelled: Container[int]) -> bool:
    others = [child for child in task_queue.get(parent).children() if child not in cancelled]
    states = task_queue.store.standings(others) if others else {}
    return any(each.state not in FINAL for each in states.values())


@click.command()
@click.argument("id", type=int)
@url_option
@click.pass_obj
def suspend(url: str | None, id: int) -> None:
    """Suspend a running task; its worker keeps it."""
    with open_queue(url) as task_queue:
        task_queue.suspend(id)
    click.echo(f"task {id} will be suspended")


@click.command("continue")
@click.argument("id", type=int)
@url_option
@click.pass_obj
def continue_task(url: str | None, id: int) -> None:
    """Continue a suspended task."""
    with open_queue(url) as task_queue:
        task_queue.continue_(id)
    click.echo(f"task {id} will continue")


@click.command()
@queue_option
@url_option
@click.pass_obj
def pause(url: str | None, queue: str) -> None:
    """Pause a queue; its running tasks continue."""
    with open_queue(url, queue) as task_queue:
        warn_of_unknown(task_queue.store, queue)
        task_queue.pause()
    click.echo(f"queue {queue} is paused")


@click.command()
@queue_option
@url_option
@click.pass_obj
def resume(url: str | None, queue: str) -> None:
    """Resume a paused queue."""
    with open_queue(url, queue) as task_queue:
        refuse_unknown(task_queue.store, queue)
        task_queue.resume()
    click.echo(f"queue {queue} is not paused")


@click.command()
@queue_option
@yes_option
@url_option
@click.pass_obj
def purge(url: str | None, queue: str, yes: bool) -> None:
    """Abandon a queue's unfinished tasks, including running ones."""
    with open_queue(url, queue) as task_queue:
        refuse_unknown(task_queue.store, queue)
        counts = task_queue.stats()._asdict()
        unfinished = sum(counts[state] for state in UNFINISHED)
        if not yes:
            confirm(f"Abandon {counted(unfinished, 'unfinished task')} of queue {queue}?")
        with progress("abandoning tasks", unfinished) as advance:
            count = _add_up(task_queue.purge_in_steps(), advance)
    click.echo(f"{counted(count)} abandoned")


@click.command()
@click.argument("older_than", metavar="DURATION", callback=checked(duration))
@queue_option
@click.option(
    "--state",
    "states",
    envvar="DBTASKQUEUE_PRUNE_STATE",
    type=click.Choice(sorted(str(state) for state in FINAL)),
    multiple=True,
    default=("done", "cancelled"),
    metavar="STATE",
    help="Delete tasks in this state: done, cancelled or abandoned. Repeatable.",
)
@yes_option
@url_option
@click.pass_obj
def prune(url: str | None, older_than: float, queue: str, states: tuple[str, ...], yes: bool) -> None:
    """Delete tasks that finished longer ago than DURATION.

    DURATION is a number and a unit: 30d, 12h, 5m, 0s.
    """
    with open_queue(url, queue) as task_queue:
        refuse_unknown(task_queue.store, queue)
        if not yes:
            words = " and ".join(states)
            confirm(f"Delete the {words} tasks of queue {queue} that finished at least {older_than:g} s ago?")
        with progress("deleting tasks") as advance:
            count = _add_up(task_queue.prune_in_steps(older_than, states), advance)
    click.echo(f"{counted(count)} deleted")


def _add_up(steps: Iterator[int], advance: Callable[[int], None]) -> int:
    count = 0
    for step in steps:
        count += step
        advance(count)
    return count
