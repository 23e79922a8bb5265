"""The command health: a check of the queues, for containers and monitoring."""

from __future__ import annotations

import click

from .._formats.quantities import seconds
from ..monitoring import probe
from .options import checked, one_queue_option, open_queue, url_option
from .output import escaped


@click.command()
@one_queue_option
@click.option(
    "--max-wait",
    metavar="DURATION",
    default="15m",
    callback=checked(seconds),
    help="How long a due task may wait, except in a paused queue.",
)
@click.option(
    "--min-workers", type=click.IntRange(min=0), default=1, metavar="NUMBER", help="How many workers must be alive."
)
@url_option
@click.pass_context
def health(ctx: click.Context, queue: str | None, max_wait: float, min_workers: int) -> None:
    """Check the database, waiting times and workers.

    The exit code is 0 if all is well. Otherwise it is 1, with a line for each problem.
    """
    with open_queue(ctx.obj) as task_queue:
        found = probe.problems(task_queue.store, max_wait, min_workers, queue)
    for line in found:
        click.echo(escaped(line))
    if found:
        ctx.exit(1)
    click.echo("ok")
