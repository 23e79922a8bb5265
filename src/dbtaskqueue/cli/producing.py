"""The command of producers: enqueue."""

from __future__ import annotations

import shlex
from datetime import datetime

import click

from .._formats.command_line import as_payload
from .._formats.payload import JSON
from ..checks import MOST, check_key
from ..functions import Options
from .options import checked, json_value, limit, moment, open_queue, queue_option, seconds, size, url_option, variable
from .output import harmless

_EXAMPLES = """
\b
Examples:
  dbtaskqueue enqueue '{"page": 7}' --in 5m
  dbtaskqueue enqueue '"a text"' --queue mail --key welcome-17
  dbtaskqueue enqueue - < payload.json
  dbtaskqueue enqueue --command -- ffmpeg -i film.mkv film.webm
"""


@click.command(epilog=_EXAMPLES)
@click.argument("words", metavar="PAYLOAD", nargs=-1)
@queue_option
@click.option(
    "--in",
    "start_in",
    metavar="DURATION",
    envvar="DBTASKQUEUE_ENQUEUE_IN",
    callback=checked(seconds),
    help="Due after this time: 90 (seconds), 5m, 12h, 2d.",
)
@click.option(
    "--at",
    "start_at",
    metavar="TIME",
    envvar="DBTASKQUEUE_ENQUEUE_AT",
    callback=checked(moment),
    help="Due at this time: 2030-01-31T12:00 in local time, 2030-01-31T12:00+01:00 in another time zone.",
)
@click.option(
    "--priority",
    type=click.IntRange(-32768, 32767),
    default=0,
    metavar="NUMBER",
    help="Tasks with a higher priority run first.",
)
@click.option(
    "--max-attempts",
    type=click.IntRange(1, MOST),
    metavar="NUMBER",
    help="Attempts before a failing task is abandoned; 10 if not given.",
)
@click.option(
    "--key",
    callback=checked(check_key),
    metavar="KEY",
    help="Deduplicate: if an unfinished task of the queue has this key, print its id and add none.",
)
@click.option(
    "--time-limit", metavar="DURATION", callback=checked(limit), help="Stop an attempt that takes longer: 90, 5m, …"
)
@click.option(
    "--stall-limit",
    metavar="DURATION",
    callback=checked(limit),
    help="Stop an attempt that reports no progress for this time.",
)
@click.option(
    "--memory-limit", metavar="SIZE", callback=checked(size), help="Stop an attempt that uses more memory: 512M, 2G, …"
)
@click.option("--command", is_flag=True, help="Enqueue the command line that follows -- instead of a PAYLOAD.")
@click.option("--cwd", metavar="DIRECTORY", help="Directory in which the command runs.  [default: the worker's]")
@click.option(
    "--env",
    metavar="NAME=VALUE",
    multiple=True,
    callback=checked(lambda values: dict(map(variable, values))),
    help="Add a variable to the command's environment. Repeatable.",
)
@url_option
@click.pass_obj
def enqueue(
    url: str | None,
    words: tuple[str, ...],
    queue: str,
    start_in: float | None,
    start_at: datetime | None,
    priority: int,
    max_attempts: int | None,
    key: str | None,
    time_limit: float | None,
    stall_limit: float | None,
    memory_limit: int | None,
    command: bool,
    cwd: str | None,
    env: dict[str, str],
) -> None:
    """Add a task and print its id.

    PAYLOAD is JSON; "-" reads it from stdin. With --command, a command line replaces it, which only workers with
    --allow-commands run.
    """
    if start_in is not None and start_at is not None:
        raise click.UsageError("give --in or --at, not both")
    options = Options(
        start_in=start_in,
        start_at=start_at,
        priority=priority,
        max_attempts=max_attempts,
        key=key,
        time_limit=time_limit,
        stall_limit=stall_limit,
        memory_limit=memory_limit,
    )
    payload = _command(words, cwd, env) if command else _payload(words, cwd, env)
    with open_queue(url, queue, create=True) as lane:
        [task] = lane.submit([payload], options, command=command)
    click.echo(task.id)


def _payload(words: tuple[str, ...], cwd: str | None, env: dict[str, str]) -> JSON:
    if cwd is not None or env:
        raise click.UsageError("--cwd and --env need --command")
    if not words:
        raise click.UsageError("Missing argument 'PAYLOAD'.")
    if len(words) > 1:
        raise click.UsageError(f"PAYLOAD is one argument; quote it for the shell: {harmless(shlex.join(words))}")
    try:
        return json_value(words[0])
    except ValueError as error:
        raise click.UsageError(f"Invalid value for 'PAYLOAD': {harmless(str(error))}") from None


def _command(words: tuple[str, ...], cwd: str | None, env: dict[str, str]) -> JSON:
    if not words:
        raise click.UsageError("--command needs a command line after two dashes: --command -- ffmpeg -i film.mkv")
    try:
        return as_payload(words, cwd, env or None)
    except ValueError as error:
        raise click.UsageError(harmless(str(error))) from None
