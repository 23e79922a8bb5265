"""The main command: its help in sections, and the errors and exit codes of all commands.

An error is one line, never a traceback. The exit code is 2 for wrong usage and 1 for a failure, which includes output
that cannot be written.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from ..errors import TaskQueueError
from .output import escaped

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class Commands(click.Group):
    """The commands, in titled groups."""

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[click.Command]], **options: Any) -> None:
        super().__init__(*args, **options)
        self._groups = groups
        for commands in groups.values():
            for command in commands:
                self.add_command(command)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Note whether the process ends after the command, and return the context."""
        is_own = bool(args) and sys.argv[-len(args) :] == args  # before click takes words from the list
        ctx = super().make_context(info_name, args, parent, **extra)
        ctx.meta[_IS_OWN] = is_own
        return ctx

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the groups, not sorted."""
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, without truncating the first line of a command's help."""
        width = max(map(len, self.commands))
        for title, commands in self._groups.items():
            with formatter.section(title):
                formatter.write_dl([(f"{c.name:{width}}", c.get_short_help_str(limit=200)) for c in commands])

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run a command as click does, but report every error in one line, including those of the library."""
        _open_closed_streams()
        _exit(self._outcome(*args, **{**options, "standalone_mode": False}))

    def _outcome(self, *args: Any, **options: Any) -> click.ClickException | int:
        """Run a command. Return its exit code, or the error to report."""
        try:
            return super().main(*args, **options) or 0
        except click.ClickException as error:
            return error
        except click.Abort:
            return _Aborted("Aborted!")
        except TaskQueueError as error:
            return click.ClickException(escaped(str(error)))
        except OSError as error:
            is_full = error.errno in _FULL and error.filename is None
            why = f"cannot write the output: {error.strerror}" if is_full else str(error)
            return click.ClickException(escaped(why))
        except SystemExit as end:  # for example, click exits when the reader of a pipe has exited
            return end.code if isinstance(end.code, int) else 1


_IS_OWN = f"{__name__}.is_own"


def is_own_command_line(ctx: click.Context) -> bool:
    """Return whether the process was started with the words of this command, and so ends after it.

    If not, a program such as a test calls the command, and continues.
    """
    found: bool = ctx.meta.get(_IS_OWN, False)
    return found


class _Aborted(click.ClickException):
    """The user answered no, or pressed Ctrl-C."""

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


def _open_closed_streams() -> None:
    """Open /dev/null in place of closed standard streams, so that no database file gets their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115


def _exit(outcome: click.ClickException | int) -> NoReturn:
    """Report an error and exit. If stderr cannot be written, only the exit code reports it."""
    code = outcome if isinstance(outcome, int) else outcome.exit_code
    if isinstance(outcome, click.ClickException):
        with contextlib.suppress(OSError):
            outcome.show()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # Python would retry when it exits, and fail with exit code 120
            code = code or 1
            with contextlib.suppress(OSError):
                stream.close()
    sys.exit(code)
