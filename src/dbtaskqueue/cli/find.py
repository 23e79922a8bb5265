"""The command find: tasks by filters, written as words."""

from __future__ import annotations

import click

from .._formats.filters import SORTS
from .._formats.words import Where, from_arguments
from ..checks import counted
from ..finding import Found, check_filters, find_tasks
from ..monitoring.tasks import attempt_text, attributes, describe
from ..states import UNFINISHED
from ..task import Blocked, Task, blocked_among
from .dependencies import blocked_words
from .options import command_line, json_option, open_queue, queue_option, url_option
from .output import escaped, local, note, print_json, table
from .queues import refuse_unknown


@click.command("find")
@click.argument("words", nargs=-1, metavar="WORDS...")
@queue_option
@click.option("--all-queues", is_flag=True, help="In all queues. A filter queue:NAME does the same for one.")
@click.option("--sort", type=click.Choice(SORTS), default="newest", help="line: the order of a claim.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, metavar="NUMBER", help="Show at most this many tasks."
)
@click.option("--cursor", metavar="TEXT", help="Continue a search where it ended.")
@json_option
@url_option
@click.pass_obj
def find(
    url: str | None,
    words: tuple[str, ...],
    queue: str,
    all_queues: bool,
    sort: str,
    limit: int,
    cursor: str | None,
    json: bool,
) -> None:
    """Find tasks by anything known about them.

    WORDS are filters, and a task must match all of them: state:failed,abandoned function:app.video.* error:"timed out"
    ended:24h runs:">1h" id:3-5 priority:">=5" payload.customer.id:7 and others. A number alone is an id. Other words
    are texts that occur in the error, the payload, the function or the key.

    A search that no index serves looks at 20,000 tasks, and prints how to continue.
    """
    where = usage(words)
    with open_queue(url, queue) as task_queue:
        store = task_queue.store
        if not all_queues and "queue" not in where:
            refuse_unknown(store, queue)
        try:
            filters = check_filters(where, queue, all_queues=all_queues)
            found = find_tasks(store, filters, sort=sort, limit=limit, cursor=cursor)
        except ValueError as error:
            raise click.UsageError(escaped(str(error))) from None
        waiting = blocked_among(store, [task.id for task in found.tasks if task.state in UNFINISHED])
    if json:
        tasks = [attributes(task, waiting.get(task.id)) for task in found.tasks]
        print_json({**found._asdict(), "tasks": tasks})
        return
    if found.tasks:
        names = ("id", "queue", "state", "attempt", "due", "payload")
        table(names, [_row(task, waiting.get(task.id)) for task in found.tasks])
    _say_how_far(found)
    if not found.complete:
        options = ["--all-queues"] if all_queues else ["--queue", queue]
        options += ["--sort", sort, "--limit", str(limit), "--cursor", found.next or ""]
        note(f"to continue: {command_line(url, 'find', *words, *options)}")


def usage(words: tuple[str, ...]) -> Where:
    """Return the filters of a command line's words. Wrong words are wrong usage."""
    try:
        return from_arguments(words)
    except ValueError as error:
        raise click.UsageError(escaped(str(error))) from None


def _say_how_far(found: Found) -> None:
    number = counted(len(found.tasks)) if found.tasks else "no task"
    if found.complete:
        note(f"{number} found")
    else:
        back = "" if found.back_to is None else f", back to task {found.back_to}"
        note(f"{number} found so far; looked at {counted(found.scanned)}{back}")


def _row(task: Task, blocked: Blocked | None) -> tuple[str, ...]:
    state = f"{task.state} (suspended)" if task.suspended else str(task.state)
    attempt = attempt_text(task.attempt, task.max_attempts)
    due = local(task.start_at) if blocked is None else blocked_words(blocked)
    return str(task.id), task.queue, state, attempt, due, describe(task)
