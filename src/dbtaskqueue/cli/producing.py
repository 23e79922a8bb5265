"""The command of producers: enqueue."""

from __future__ import annotations

import shlex
from typing import Unpack

import click

from ..calls import Command, Target
from ..options import Options
from .options import checked, flags_of, json_value, open_queue, queue_option, url_option, variable
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
@flags_of(Options, "enqueue")
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
    command: bool,
    cwd: str | None,
    env: dict[str, str],
    **options: Unpack[Options],
) -> None:
    """Add a task and print its id.

    PAYLOAD is JSON; "-" reads it from stdin. With --command, a command line replaces it, which only workers with
    --allow-commands run.
    """
    if options["start_in"] is not None and options["start_at"] is not None:
        raise click.UsageError("give --in or --at, not both")
    target = _command(words, cwd, env) if command else _payload(words, cwd, env)
    with open_queue(url, queue, create=True) as opened:
        click.echo(opened.enqueue(target, **options).id)


def _payload(words: tuple[str, ...], cwd: str | None, env: dict[str, str]) -> Target:
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


def _command(words: tuple[str, ...], cwd: str | None, env: dict[str, str]) -> Command:
    if not words:
        raise click.UsageError("--command needs a command line after two dashes: --command -- ffmpeg -i film.mkv")
    try:
        return Command(words, cwd, env or None)
    except ValueError as error:
        raise click.UsageError(harmless(str(error))) from None
