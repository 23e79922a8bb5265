"""The command of producers: enqueue."""

from __future__ import annotations

from datetime import datetime

import click

from ..checks import MOST
from ..names import check_key
from ..payload import JSON
from .options import checked, json_value, moment, open_queue, queue_option, seconds


@click.command()
@click.argument("payload", callback=checked(json_value))
@queue_option
@click.option(
    "--in",
    "start_in",
    metavar="DURATION",
    envvar="DBTASKQUEUE_ENQUEUE_IN",
    callback=checked(seconds),
    help="Due in 90 (seconds), 5m, 12h, …",
)
@click.option(
    "--at",
    "start_at",
    metavar="TIME",
    envvar="DBTASKQUEUE_ENQUEUE_AT",
    callback=checked(moment),
    help="Due at this time (ISO 8601).",
)
@click.option("--priority", type=click.IntRange(-32768, 32767), default=0, help="Higher ones come first.  [default: 0]")
@click.option("--max-attempts", type=click.IntRange(1, MOST), help="The attempt after which a failure is final.")
@click.option("--key", callback=checked(check_key), help="Not again while an unfinished task of the queue has it.")
@click.pass_obj
def enqueue(
    url: str | None,
    payload: JSON,
    queue: str,
    start_in: float | None,
    start_at: datetime | None,
    priority: int,
    max_attempts: int | None,
    key: str | None,
) -> None:
    """Add a task and print its id.

    PAYLOAD is JSON, such as '{"page": 7}' or '"a text"'; a dash reads it from stdin.
    """
    if start_in is not None and start_at is not None:
        raise click.UsageError("give --in or --at, not both")
    with open_queue(url, queue, create=True) as lane:
        task = lane.enqueue(
            payload, start_in=start_in, start_at=start_at, priority=priority, max_attempts=max_attempts, key=key
        )
    click.echo(task.id)
