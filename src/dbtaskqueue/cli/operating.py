"""The commands of operators: retry, cancel, suspend, continue, pause, resume, and what destroys: purge, prune."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from ..states import FINAL, UNFINISHED
from .options import checked, confirm, duration, open_queue, queue_option, url_option, yes_option
from .output import counted, progress
from .queues import refuse_unknown, warn_of_unknown


@click.command()
@click.argument("id", type=int)
@url_option
@click.pass_obj
def retry(url: str | None, id: int) -> None:
    """Run a failed, abandoned, cancelled or done task again, now."""
    with open_queue(url) as lane:
        task = lane.retry(id)
    click.echo(f"task {id} is {task.state}")


@click.command()
@click.argument("id", type=int)
@url_option
@click.pass_obj
def cancel(url: str | None, id: int) -> None:
    """Cancel a task; a running one is asked to end."""
    with open_queue(url) as lane:
        lane.cancel(id)
        task = lane.get(id)
    click.echo(f"task {id} was asked to end" if task.cancel_requested else f"task {id} is {task.state}")


@click.command()
@click.argument("id", type=int)
@url_option
@click.pass_obj
def suspend(url: str | None, id: int) -> None:
    """Let a running task stand still; it stays with its worker."""
    with open_queue(url) as lane:
        lane.suspend(id)
    click.echo(f"task {id} is to stand still")


@click.command("continue")
@click.argument("id", type=int)
@url_option
@click.pass_obj
def continue_task(url: str | None, id: int) -> None:
    """Let a suspended task go on."""
    with open_queue(url) as lane:
        lane.continue_(id)
    click.echo(f"task {id} is to go on")


@click.command()
@queue_option
@url_option
@click.pass_obj
def pause(url: str | None, queue: str) -> None:
    """Let nobody fetch from a queue; what runs goes on."""
    with open_queue(url, queue) as lane:
        warn_of_unknown(lane.store, queue)
        lane.pause()
    click.echo(f"queue {queue} is paused")


@click.command()
@queue_option
@url_option
@click.pass_obj
def resume(url: str | None, queue: str) -> None:
    """Let a paused queue be fetched from again."""
    with open_queue(url, queue) as lane:
        refuse_unknown(lane.store, queue)
        lane.resume()
    click.echo(f"queue {queue} is not paused")


@click.command()
@queue_option
@yes_option
@url_option
@click.pass_obj
def purge(url: str | None, queue: str, yes: bool) -> None:
    """Abandon every unfinished task of a queue, running ones too."""
    with open_queue(url, queue) as lane:
        refuse_unknown(lane.store, queue)
        counts = lane.stats()._asdict()
        unfinished = sum(counts[state] for state in UNFINISHED)
        if not yes:
            confirm(f"Abandon {counted(unfinished, 'unfinished task')} of queue {queue}?")
        with progress("abandoning tasks", unfinished) as tell:
            count = _add_up(lane.purge_in_steps(), tell)
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
    help="Tasks in this state; may be repeated.  [default: done and cancelled]",
)
@yes_option
@url_option
@click.pass_obj
def prune(url: str | None, older_than: float, queue: str, states: tuple[str, ...], yes: bool) -> None:
    """Delete what ended longer ago than DURATION: 30d, 12h, 0s."""
    with open_queue(url, queue) as lane:
        refuse_unknown(lane.store, queue)
        if not yes:
            words = " and ".join(states)
            confirm(f"Delete the {words} tasks of queue {queue} that ended {older_than:g} s ago or earlier?")
        with progress("deleting tasks") as tell:
            count = _add_up(lane.prune_in_steps(older_than, states), tell)
    click.echo(f"{counted(count)} deleted")


def _add_up(steps: Iterator[int], tell: Callable[[int], None]) -> int:
    count = 0
    for step in steps:
        count += step
        tell(count)
    return count
