"""The commands suspend and continue of a task, and pause, resume, purge and prune of a queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from .._formats.quantities import duration
from ..states import FINAL, UNFINISHED
from .completion import task_ids
from .options import checked, confirm, open_queue, operator, queue_option, url_option, yes_option
from .output import counted, progress
from .queues import refuse_unknown, warn_of_unknown


@click.command()
@click.argument("id", type=int, shell_complete=task_ids)
@url_option
@click.pass_obj
def suspend(url: str | None, id: int) -> None:
    """Suspend a running task; its worker keeps it."""
    with open_queue(url) as task_queue:
        task_queue.suspend(id, actor=operator())
    click.echo(f"task {id} will be suspended")


@click.command("continue")
@click.argument("id", type=int, shell_complete=task_ids)
@url_option
@click.pass_obj
def continue_task(url: str | None, id: int) -> None:
    """Continue a suspended task."""
    with open_queue(url) as task_queue:
        task_queue.continue_(id, actor=operator())
    click.echo(f"task {id} will continue")


@click.command()
@queue_option
@url_option
@click.pass_obj
def pause(url: str | None, queue: str) -> None:
    """Pause a queue; its running tasks continue."""
    with open_queue(url, queue) as task_queue:
        warn_of_unknown(task_queue.store, queue)
        task_queue.pause(actor=operator())
    click.echo(f"queue {queue} is paused")


@click.command()
@queue_option
@url_option
@click.pass_obj
def resume(url: str | None, queue: str) -> None:
    """Resume a paused queue."""
    with open_queue(url, queue) as task_queue:
        refuse_unknown(task_queue.store, queue)
        task_queue.resume(actor=operator())
    click.echo(f"queue {queue} is resumed")


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
            count = _add_up(task_queue.purge_in_steps(actor=operator()), advance)
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
            count = _add_up(task_queue.prune_in_steps(older_than, states, actor=operator()), advance)
    click.echo(f"{counted(count)} deleted")


def _add_up(steps: Iterator[int], advance: Callable[[int], None]) -> int:
    count = 0
    for step in steps:
        count += step
        advance(count)
    return count
