"""The command of producers: enqueue."""

from __future__ import annotations

import shlex
from datetime import datetime

import click

from ..checks import MOST
from ..command_line import as_payload
from ..functions import Options
from ..names import check_key
from ..payload import JSON
from .options import checked, json_value, limit, moment, open_queue, queue_option, seconds, size, url_option, variable
from .output import harmless


@click.command()
@click.argument("words", metavar="PAYLOAD", nargs=-1)
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
@click.option(
    "--time-limit", metavar="DURATION", callback=checked(limit), help="End an attempt that takes longer: 90, 5m, …"
)
@click.option(
    "--stall-limit", metavar="DURATION", callback=checked(limit), help="End an attempt without progress for so long."
)
@click.option("--memory-limit", metavar="SIZE", callback=checked(size), help="End what uses more: 512M, 2G, …")
@click.option("--command", is_flag=True, help="A command line instead of PAYLOAD, after two dashes.")
@click.option("--cwd", metavar="FOLDER", help="Where the command runs.  [default: the worker's folder]")
@click.option(
    "--env",
    metavar="NAME=VALUE",
    multiple=True,
    callback=checked(lambda values: dict(map(variable, values))),
    help="Add it to the command's environment; may be repeated.",
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

    PAYLOAD is JSON, such as '{"page": 7}' or '"a text"'; a dash reads it from stdin. A command line for workers that
    allow commands: enqueue --command -- ffmpeg -i film.mkv film.webm
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
        raise click.UsageError("--cwd and --env are for a --command")
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
