"""The command audit: who did what to which task or queue."""

from __future__ import annotations

import json as json_format

import click

from ..audit import Action
from .options import json_option, open_queue, optional_queue, url_option
from .output import local, note, print_json, table


@click.command("audit")
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, metavar="NUMBER", help="Show at most this many actions."
)
@click.option("--before", type=click.IntRange(min=1), metavar="ID", help="Only actions with lower ids: the next page.")
@click.option("--who", metavar="NAME", help="Only actions of this operator.")
@click.option("--verb", metavar="VERB", help="Only this action: cancel, retry, pause, …")
@optional_queue("Only what was done to this queue.")
@click.option("--task", type=int, metavar="ID", help="Only what was done to this task.")
@json_option
@url_option
@click.pass_obj
def audit(
    url: str | None,
    limit: int,
    before: int | None,
    who: str | None,
    verb: str | None,
    queue: str | None,
    task: int | None,
    json: bool,
) -> None:
    """Show what operators did, newest first.

    Refused actions are listed, too. Actions of the dashboard and of this command line are logged, and those of programs
    that pass actor=.
    """
    with open_queue(url) as opened:
        found = opened.audit(limit=limit, before=before, who=who, verb=verb, queue=queue, task=task)
    if json:
        print_json([action._asdict() for action in found])
    elif found:
        table(("id", "at", "who", "via", "verb", "task", "count", "outcome"), [_row(action) for action in found])
    else:
        note("no actions")


def _row(action: Action) -> tuple[str, ...]:
    """Return the cells of an action. The last one, which is cut, has what is left."""
    rest = [action.outcome]
    if action.queue is not None:
        rest.append(f"queue {action.queue}")
    if action.detail:
        rest.append(json_format.dumps(action.detail, ensure_ascii=False))
    task = "" if action.task is None else str(action.task)
    at = local(action.at)
    return str(action.id), at, action.who, action.via, action.verb, task, str(action.count), "  ".join(rest)
