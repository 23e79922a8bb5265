"""The commands that act on one task or on all that match filters: retry, cancel, reschedule and delete."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import click

from .._formats import quantities
from .._formats.filters import Filters
from .._formats.words import Where, to_words
from .._store.contract import NO_CHANGE, BulkVerb, Change
from .._system import clock
from ..audit import new_action
from ..bulk import Bulk, carry_out, newest_task, to_change, to_spread
from ..checks import PRIORITIES, check_queue, listed
from ..errors import InvalidTransition, TaskNotFound
from ..finding import check_filters
from ..queue import TaskQueue
from ..states import FINAL
from .completion import task_ids
from .find import usage
from .options import checked, confirm, open_queue, operator, queue_option, require_yes, url_option
from .output import counted, escaped, local, progress
from .queues import refuse_unknown

_DONE = {"retry": "retried", "cancel": "cancelled", "reschedule": "rescheduled", "delete": "deleted"}
_DOING = {"retry": "retrying", "cancel": "cancelling", "reschedule": "rescheduling", "delete": "deleting"}


class Chosen(NamedTuple):
    """The tasks that a command acts on: the one with this id or, if that is None, all that match the filters."""

    id: int | None
    where: Where
    queue: str
    all_queues: bool
    dry_run: bool
    yes: bool


_OPTIONS = (
    click.argument("words", metavar="ID | --where WORDS...", nargs=-1, shell_complete=task_ids),
    click.option("--where", is_flag=True, help="Act on all tasks that match WORDS: the filters of the command find."),
    queue_option,
    click.option("--all-queues", is_flag=True, help="With --where: in all queues."),
    click.option("--dry-run", is_flag=True, help="With --where: print what would be done, and change nothing."),
    click.option("--yes", is_flag=True, help="With --where: do not ask. Required where stdin is not a terminal."),
    url_option,
)


def _chosen_tasks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument and the options for the tasks to act on. The command receives them as ``chosen``."""

    @functools.wraps(function)
    def with_chosen(*args: Any, **kwargs: Any) -> Any:
        names = ("words", "where", "queue", "all_queues", "dry_run", "yes")
        return function(*args, chosen=_choose(*[kwargs.pop(name) for name in names]), **kwargs)

    for add in reversed(_OPTIONS):
        with_chosen = add(with_chosen)
    return with_chosen


def _choose(words: tuple[str, ...], is_where: bool, queue: str, all_queues: bool, dry_run: bool, yes: bool) -> Chosen:
    if not is_where:
        for flag, is_given in (("--all-queues", all_queues), ("--dry-run", dry_run)):
            if is_given:
                raise click.UsageError(f"{flag} needs --where")
        return Chosen(_id(words), {}, queue, all_queues=False, dry_run=False, yes=yes)
    for word in words:
        if word.isdecimal():
            raise click.UsageError(f"give an id or --where, not both; as a filter, an id is written id:{word}")
    where = usage(words)
    if not where:
        raise click.UsageError("--where needs at least one filter, such as state:failed; none would mean every task")
    if not dry_run:
        require_yes(yes)
    return Chosen(None, where, queue, all_queues, dry_run, yes)


def _id(words: tuple[str, ...]) -> int:
    if not words:
        raise click.UsageError("Missing argument 'ID': give the id of a task, or --where and filters")
    try:
        [word] = words
        return int(word)
    except ValueError:
        shown = escaped(" ".join(words)[:100])
        raise click.UsageError(f"give one id, not {shown!r}; filters need --where before them") from None


# -- all tasks that match --------------------------------------------------------------------------


def _act(
    url: str | None,
    verb: BulkVerb,
    chosen: Chosen,
    *,
    change: Change = NO_CHANGE,
    spread: int = 0,
    detail: Mapping[str, Any] = {},
) -> None:
    """Act on all tasks that match, after a question, and print what was done."""
    with open_queue(url, chosen.queue) as opened:
        store = opened.store
        if not chosen.all_queues and "queue" not in chosen.where:
            refuse_unknown(store, chosen.queue)
        filters = _filters(chosen)
        # leave alone what is enqueued while the user reads the question
        act = functools.partial(
            carry_out, store, verb, filters, change=change, spread=spread, highest=newest_task(store)
        )
        if chosen.dry_run:
            click.echo(summary(verb, act(dry_run=True), dry_run=True))
            return
        if not chosen.yes and not _is_confirmed(verb, filters, act(dry_run=True)):
            return
        queues = filters.texts("queue")
        queue = queues[0] if len(queues) == 1 else None
        action = new_action(operator(), verb, queue=queue, where=filters.where(), **detail)
        with progress(f"{_DOING[verb]} tasks") as advance:
            bulk = act(action=action, progress=advance if sys.stderr.isatty() else None)
    click.echo(summary(verb, bulk))


def _filters(chosen: Chosen) -> Filters:
    try:
        return check_filters(chosen.where, chosen.queue, all_queues=chosen.all_queues)
    except ValueError as error:
        raise click.UsageError(escaped(str(error))) from None


def _is_confirmed(verb: BulkVerb, filters: Filters, would: Bulk) -> bool:
    """Ask, unless there is nothing to do, which is printed."""
    if not would.changed:
        click.echo(summary(verb, would))
        return False
    verb_of = "matches" if would.changed == 1 else "match"
    confirm(escaped(f"{verb.capitalize()} {counted(would.changed)} that {verb_of} {to_words(filters)}?"))
    return True


def summary(verb: BulkVerb, bulk: Bulk, *, dry_run: bool = False) -> str:
    """Return what a bulk action has done, in one line."""
    done = f"would {verb}" if dry_run else _DONE[verb]
    refused = ", ".join(f"{why} ({number})" for why, number in sorted(bulk.refused.items()))
    return escaped(f"{done} {counted(bulk.changed)}" + (f"; refused: {refused}" if refused else ""))


# -- the commands ----------------------------------------------------------------------------------


@click.command()
@_chosen_tasks
@click.option(
    "--spread",
    metavar="DURATION",
    callback=checked(quantities.duration),
    help="With --where: let the tasks become due over this time, so that they do not all start now.",
)
@click.pass_obj
def retry(url: str | None, chosen: Chosen, spread: float | None) -> None:
    """Run a failed or finished task again, now.

    With --where, retry all tasks that match the filters.
    """
    if chosen.id is None:
        _act(url, "retry", chosen, spread=to_spread(spread or 0), detail={"spread": spread})
        return
    if spread is not None:
        raise click.UsageError("--spread needs --where")
    with open_queue(url) as task_queue:
        task = task_queue.retry(chosen.id, actor=operator())
    click.echo(f"task {task.id} is {task.state}")


@click.command()
@_chosen_tasks
@click.option(
    "--tree", is_flag=True, help="Also cancel unfinished parents, and their parents, if no other task needs them."
)
@click.pass_obj
def cancel(url: str | None, chosen: Chosen, tree: bool) -> None:
    """Cancel a task; request the cancellation of a running one.

    Its children that wait for it to be done are also cancelled. With --where, cancel all tasks that match the filters.
    """
    id = chosen.id
    if id is None:
        if tree:
            raise click.UsageError("--tree needs an id, not --where")
        _act(url, "cancel", chosen)
        return
    with open_queue(url) as task_queue:
        task_queue.cancel(id, actor=operator())
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
                cancelled[parent] = task_queue.cancel(parent, actor=operator())
                left.append(parent)
    del cancelled[id]
    return cancelled


def _is_needed(task_queue: TaskQueue, parent: int, cancelled: Container[int]) -> bool:
    others = [child for child in task_queue.get(parent).children() if child not in cancelled]
    states = task_queue.store.standings(others) if others else {}
    return any(each.state not in FINAL for each in states.values())


@click.command()
@_chosen_tasks
@click.option(
    "--in",
    "start_in",
    envvar="DBTASKQUEUE_RESCHEDULE_IN",
    metavar="DURATION",
    callback=checked(quantities.seconds),
    help="Due after this time: 90 (seconds), 5m, 12h, 2d.",
)
@click.option(
    "--at",
    "start_at",
    envvar="DBTASKQUEUE_RESCHEDULE_AT",
    metavar="TIME",
    callback=checked(quantities.moment),
    help="Due at this time: 2030-01-31T12:00 in local time, 2030-01-31T12:00+01:00 in another time zone.",
)
@click.option("--priority", metavar="NUMBER", type=click.IntRange(*PRIORITIES), help="The new priority.")
@click.option("--to-queue", metavar="NAME", callback=checked(check_queue), help="Move to this queue.")
@click.pass_obj
def reschedule(
    url: str | None,
    chosen: Chosen,
    start_in: float | None,
    start_at: datetime | None,
    priority: int | None,
    to_queue: str | None,
) -> None:
    """Change when a task is due, its priority, or its queue.

    The task must be pending or failed. With --where, reschedule all tasks that match the filters.
    """
    try:
        change = to_change(start_in, start_at, priority, to_queue, clock.now())
    except ValueError:
        raise click.UsageError(
            "give --in or --at, --priority, or --to-queue; --in and --at exclude each other"
        ) from None
    if chosen.id is None:
        due = clock.to_datetime(change.due)
        detail = {"start_at": due and due.isoformat(), "priority": priority, "to_queue": to_queue}
        _act(url, "reschedule", chosen, change=change, detail=detail)
        return
    with open_queue(url) as task_queue:
        task = task_queue.reschedule(
            chosen.id, start_in=start_in, start_at=start_at, priority=priority, queue=to_queue, actor=operator()
        )
    due_at = local(task.start_at)
    click.echo(escaped(f"task {task.id} of queue {task.queue} is {task.state}" + (f", due {due_at}" if due_at else "")))


@click.command()
@_chosen_tasks
@click.pass_obj
def delete(url: str | None, chosen: Chosen) -> None:
    """Delete a task that has ended, with all its attempts.

    Its state must be done, cancelled or abandoned. A task that an unfinished task waits for cannot be deleted. With
    --where, delete all tasks that match the filters.
    """
    if chosen.id is None:
        _act(url, "delete", chosen)
        return
    with open_queue(url) as task_queue:
        task_queue.delete(chosen.id, actor=operator())
    click.echo(f"task {chosen.id} is deleted")
