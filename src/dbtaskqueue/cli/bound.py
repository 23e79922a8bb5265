"""A command line for a given queue: all commands, for the database and the functions of one ``TaskQueue``.

A framework that knows the application's queue adds it to its own command line, such as ``flask tasks worker``.
"""

from __future__ import annotations

import copy
import shlex
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from ..errors import SchemaError, TaskQueueError
from ..queue import TaskQueue
from .commands import Commands
from .options import Bound, bind
from .output import escaped

_REPLACED = {"url", "target"}
"""Parameters that name the database and the code of tasks."""
_LEFT_OUT = {"demo", "completion"}
"""Commands that are about dbtaskqueue's own command line."""


class _BoundCommands(Commands):
    """The commands, which also report errors of the library in one line when another command line calls them.

    ``migrate``: the words of the command that creates the tables.
    """

    migrate: Sequence[str] = ()

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except TaskQueueError as error:
            problem = error.problem if self.migrate and isinstance(error, SchemaError) else None
            text = str(error) if problem is None else f"{problem}; run: {shlex.join(self.migrate)}"
            raise click.ClickException(escaped(text)) from error


def command_line_for(
    queue: TaskQueue | Callable[[], TaskQueue],
    name: str = "dbtaskqueue",
    *,
    queues: Sequence[str] = (),
    program: Sequence[str] = (),
    migrate: Sequence[str] = (),
    is_program: bool | None = None,
    changes: Callable[[], Iterable[set[str]]] | None = None,
) -> click.Group:
    """Return a click group with all commands, without ``--url`` and ``MODULE:NAME``.

    ``queue``: the ``TaskQueue``, or a function that returns it when a command runs. ``queues``: those that ``worker``
    serves by default. ``program``: the words before a command when a message suggests one. ``migrate``: the words of
    the command that creates the tables; by default, the command ``migrate`` of this command line.

    ``is_program``: whether the process ends after the command. Then ``worker`` logs to stderr, and ignores signals
    after its end. Otherwise, logging and the handlers of signals stay as they are. None: it does if ``sys.argv`` ends
    with the words of the command. ``changes``: yields the files that have changed, for ``worker --reload``, as in
    ``reloading``.
    """
    from . import GROUPS

    served = f"{'all queues' if queues else 'the queue'} of the application"
    groups = {
        title: [_without_target(command, served) for command in commands if command.name not in _LEFT_OUT]
        for title, commands in GROUPS.items()
    }

    @click.pass_context
    def start(ctx: click.Context) -> None:
        """Run and operate the tasks of this application."""
        found = queue if isinstance(queue, TaskQueue) else queue()
        bind(ctx, Bound(found, tuple(queues), tuple(program), is_program, changes))

    settings = {
        "auto_envvar_prefix": "DBTASKQUEUE",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    }
    group = _BoundCommands(
        name,
        groups={title: found for title, found in groups.items() if found},
        callback=start,
        context_settings=settings,
    )
    group.migrate = migrate or ((*program, "migrate") if program else ())
    return group


def _without_target(command: click.Command, served: str) -> click.Command:
    """Return a copy of a command without the parameters that a given queue replaces, and without their help.

    ``served``: the queues that ``worker`` serves by default.
    """
    found = copy.copy(command)
    found.params = [_of_application(each, served) for each in command.params if each.name not in _REPLACED]
    paragraphs = (command.help or "").split("\n\n")
    found.help = "\n\n".join(text for text in paragraphs if "MODULE:NAME" not in text)
    found.epilog = (
        None if "MODULE:NAME" in (command.epilog or "") or "app:" in (command.epilog or "") else command.epilog
    )
    if isinstance(found, click.Group):
        found.commands = {name: _without_target(each, served) for name, each in found.commands.items()}
    return found


def _of_application(parameter: click.Parameter, served: str) -> click.Parameter:
    if isinstance(parameter, click.Option) and "MODULE:NAME" in (parameter.help or ""):
        parameter = copy.copy(parameter)
        parameter.help = (parameter.help or "").replace("that of MODULE:NAME, else default", served)
    return parameter
