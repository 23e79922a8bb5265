"""The command doctor: print what ``monitoring.health`` finds."""

from __future__ import annotations

from functools import partial

import click

from .._store.contract import Finding
from ..errors import TaskQueueError
from ..monitoring import health
from .options import command_line, default_queue, json_option, one_queue_option, open_queue, url_option
from .output import escaped, fields, print_json
from .queues import refuse_unknown


@click.command()
@one_queue_option
@json_option
@url_option
@click.pass_obj
def doctor(url: str | None, queue: str | None, json: bool) -> None:
    """Check the database, and suggest fixes.

    All queues are checked unless --queue names one. The exit code is 1 only if something must be repaired.
    """
    try:
        with open_queue(url) as task_queue:
            store = task_queue.store
            refuse_unknown(store, queue)
            found = health.check(store, [queue] if queue else store.queues(), partial(_command_line, url))
    except TaskQueueError as error:
        if json:
            _print_json([Finding("database", str(error), broken=True)])
        raise
    (_print_json if json else _print)(found)
    broken = [finding for finding in found if finding.broken]
    if broken:
        raise click.ClickException("must be repaired: " + escaped("; ".join(f"{b.name}: {b.value}" for b in broken)))


def _command_line(url: str | None, command: str, *words: str, queue: str | None = None) -> str:
    """Return a command line that the user can copy. It omits the default queue."""
    option = () if queue in (None, default_queue()) else ("--queue", queue)
    return command_line(url, command, *option, *words)


def _print(found: list[Finding]) -> None:
    fields((finding.name, finding.value) for finding in found)
    actions = [finding for finding in found if finding.advice]
    click.echo("\nAction required; suggested fixes:" if actions else "\nNo action required.")
    for finding in actions:
        click.echo(escaped(f"  {finding.name}: {finding.advice}"))


def _print_json(found: list[Finding]) -> None:
    broken = any(finding.broken for finding in found)
    print_json({"broken": broken, "findings": [finding._asdict() for finding in found]})
