"""The command enqueue: store a task."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from typing import Any, Unpack

import click

from .._formats.payload import JSON
from ..calls import Command, Target, TaskCall
from ..checks import check_function
from ..options import Options
from .options import checked, flags_of, json_value, open_queue, queue_option, url_option, variable
from .output import escaped

_EXAMPLES = """
\b
Examples:
  dbtaskqueue enqueue '{"page": 7}' --in 5m
  dbtaskqueue enqueue '"a text"' --queue mail --key welcome-17
  dbtaskqueue enqueue - < payload.json
  dbtaskqueue enqueue --function app.resize '["a.png"]' --kwargs '{"w": 9}'
  dbtaskqueue enqueue --command -- ffmpeg -i film.mkv film.webm
"""


class TargetCommand(click.Command):
    """A command with ``target_options``. It refuses a command line whose options would be read as its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        if "--command" in args and "--" not in args:
            words = args[args.index("--command") + 1 :]
            if words and not words[0].startswith("-") and any(word.startswith("-") for word in words):
                raise click.UsageError(
                    f"a command line needs two dashes before it: --command -- {escaped(shlex.join(words))}", ctx
                )
        return super().parse_args(ctx, args)


_TARGET_OPTIONS = (
    click.argument("words", metavar="[PAYLOAD]", nargs=-1),
    click.option(
        "--function",
        metavar="NAME",
        callback=checked(check_function),
        help="Call this task function. PAYLOAD is the JSON array of its arguments.",
    ),
    click.option("--kwargs", metavar="OBJECT", help="Keyword arguments of the --function, as a JSON object."),
    click.option("--command", is_flag=True, help="Run the command line that follows -- instead of a PAYLOAD."),
    click.option("--cwd", metavar="DIRECTORY", help="Directory in which the command runs.  [default: the worker's]"),
    click.option(
        "--env",
        metavar="NAME=VALUE",
        multiple=True,
        callback=checked(lambda values: dict(map(variable, values))),
        help="Add a variable to the command's environment. Repeatable.",
    ),
)


def target_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument and the options for what to enqueue. The command receives it as ``target``."""

    @functools.wraps(function)
    def with_target(*args: Any, **kwargs: Any) -> Any:
        given = [kwargs.pop(name) for name in ("words", "function", "kwargs", "command", "cwd", "env")]
        return function(*args, target=_target(*given), **kwargs)

    for add in reversed(_TARGET_OPTIONS):
        with_target = add(with_target)
    return with_target


def _target(
    words: tuple[str, ...],
    function: str | None,
    kwargs: str | None,
    command: bool,
    cwd: str | None,
    env: dict[str, str],
) -> Target:
    if function is not None and command:
        raise click.UsageError("give --function or --command, not both")
    if kwargs is not None and function is None:
        raise click.UsageError("--kwargs needs --function")
    if not command and (cwd is not None or env):
        raise click.UsageError("--cwd and --env need --command")
    if command:
        return _command(words, cwd, env)
    if function is not None:
        return _call(function, words or ("[]",), kwargs or "{}")
    return _payload(words)


@click.command(cls=TargetCommand, epilog=_EXAMPLES)
@queue_option
@flags_of(Options, "enqueue")
@target_options
@url_option
@click.pass_obj
def enqueue(url: str | None, queue: str, target: Target, **options: Unpack[Options]) -> None:
    """Add a task and print its id.

    PAYLOAD is JSON; "-" reads it from stdin. With --command, a command line replaces it, which only workers with
    --allow-commands run. With --function, the arguments are checked when the task runs.
    """
    if options["start_in"] is not None and options["start_at"] is not None:
        raise click.UsageError("give --in or --at, not both")
    if options["after"] is None and options["when"] != "done":
        raise click.UsageError("--when needs --after")
    with open_queue(url, queue, create=True) as opened:
        click.echo(opened.enqueue(target, **options).id)


def _payload(words: tuple[str, ...]) -> JSON:
    if not words:
        raise click.UsageError("Missing argument 'PAYLOAD'.")
    if len(words) > 1:
        raise click.UsageError(f"PAYLOAD must be one argument; quote it for the shell: {escaped(shlex.join(words))}")
    return _json(words[0], "PAYLOAD")


def _json(text: str, name: str) -> JSON:
    try:
        return json_value(text)
    except ValueError as error:
        raise click.UsageError(f"Invalid value for '{name}': {escaped(str(error))}") from None


def _call(function: str, words: tuple[str, ...], kwargs: str) -> TaskCall:
    arguments, keywords = _payload(words), _json(kwargs, "--kwargs")
    if not isinstance(arguments, list):
        raise click.UsageError("with --function, PAYLOAD must be a JSON array of arguments")
    if not isinstance(keywords, dict):
        raise click.UsageError("--kwargs must be a JSON object")
    return TaskCall(function, arguments, keywords, {}, {})


def _command(words: tuple[str, ...], cwd: str | None, env: dict[str, str]) -> Command:
    if not words:
        raise click.UsageError("--command needs a command line after two dashes: --command -- ffmpeg -i film.mkv")
    try:
        return Command(words, cwd, env or None)
    except ValueError as error:
        raise click.UsageError(escaped(str(error))) from None
