"""A command line for a given queue: all commands, for the database and the functions of one ``TaskQueue``.

A framework that knows the application's queue adds it to its own command line, such as ``flask tasks worker``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..errors import TaskQueueError
from ..queue import TaskQueue
from .commands import Commands
from .options import Bound, bind
from .output import escaped

_REPLACED = {"url", "target"}
"""Parameters that name the database and the code of tasks."""


class _BoundCommands(Commands):
    """The commands, which also report errors of the library in one line when another command line calls them."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except TaskQueueError as error:
            raise click.ClickException(escaped(str(error))) from error


def command_line_for(
    queue: TaskQueue | Callable[[], TaskQueue],
    name: str = "dbtaskqueue",
    *,
    queues: Sequence[str] = (),
    program: Sequence[str] = (),
    without: Sequence[str] = ("demo",),
    logs: bool = True,
) -> click.Group:
    """Return a click group with all commands, without ``--url`` and ``MODULE:NAME``.

    ``queue``: the ``TaskQueue``, or a function that returns it when a command runs. ``queues``: those that ``worker``
    serves by default. ``program``: the words before a command when a message suggests one. ``without``: commands that
    are left out. ``logs``: whether ``worker`` is a program of its own, which sets up logging to stderr and exits
    afterwards. If not, logging and the handlers of signals stay as they are.
    """
    from . import GROUPS

    groups = {
        title: [_without_target(command) for command in commands if command.name not in without]
        for title, commands in GROUPS.items()
    }

    @click.pass_context
    def start(ctx: click.Context) -> None:
        """Run and operate the tasks of this application."""
        bind(ctx, Bound(queue if isinstance(queue, TaskQueue) else queue(), tuple(queues), tuple(program), logs))

    settings = {
        "auto_envvar_prefix": "DBTASKQUEUE",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    }
    return _BoundCommands(
        name,
        groups={title: found for title, found in groups.items() if found},
        callback=start,
        context_settings=settings,
    )


def _without_target(command: click.Command) -> click.Command:
    """Return a copy of a command without the parameters that a given queue replaces, and without their help."""
    found = copy.copy(command)
    found.params = [_of_application(each) for each in command.params if each.name not in _REPLACED]
    paragraphs = (command.help or "").split("\n\n")
    found.help = "\n\n".join(text for text in paragraphs if "MODULE:NAME" not in text)
    found.epilog = (
        None if "MODULE:NAME" in (command.epilog or "") or "app:" in (command.epilog or "") else command.epilog
    )
    if isinstance(found, click.Group):
        found.commands = {name: _without_target(each) for name, each in found.commands.items()}
    return found


def _of_application(parameter: click.Parameter) -> click.Parameter:
    if isinstance(parameter, click.Option) and "MODULE:NAME" in (parameter.help or ""):
        parameter = copy.copy(parameter)
        parameter.help = (parameter.help or "").replace("that of MODULE:NAME, else default", "all of the application")
    return parameter
