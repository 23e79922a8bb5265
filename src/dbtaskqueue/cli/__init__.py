"""The command line: ``dbtaskqueue [--url URL] COMMAND``.

One file for each group of commands. What a user did wrong is said in one line, never as a traceback:
exit code 2 where the command line cannot be understood, 1 where what it asks for fails.
"""

from __future__ import annotations

import errno

import click

from ..errors import TaskQueueError
from .copying import copy
from .demo import demo
from .following import logs
from .looking import list_tasks, show, stats, workers
from .operating import cancel, continue_task, pause, prune, purge, resume, retry, suspend
from .output import harmless
from .producing import enqueue
from .schema import doctor, migrate
from .watching import watch
from .working import worker

_COMMANDS: tuple[click.Command, ...] = (
    *(enqueue, worker),
    *(list_tasks, show, logs, stats, workers, watch),
    *(retry, cancel, suspend, continue_task, pause, resume, purge, prune),
    *(migrate, copy, doctor, demo),
)


class Commands(click.Group):
    """Commands in the order in which one meets them, and errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except TaskQueueError as error:
            raise click.ClickException(harmless(str(error))) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # who read our output has seen enough; click ends quietly
                raise
            raise click.ClickException(harmless(str(error))) from error


@click.group(cls=Commands, invoke_without_command=True, context_settings={"auto_envvar_prefix": "DBTASKQUEUE"})
@click.option("--url", help="The database.  [default: $DBTASKQUEUE_URL, else sqlite:///taskqueue.sqlite]")
@click.version_option(package_name="dbtaskqueue")
@click.pass_context
def main(ctx: click.Context, url: str | None) -> None:
    """A persistent task queue for long-running tasks in a SQL database.

    Every option can also be given as an environment variable: DBTASKQUEUE_URL, DBTASKQUEUE_QUEUE for all commands,
    DBTASKQUEUE_WORKER_CONCURRENCY for --concurrency of the command "worker", and so on.
    """
    ctx.obj = url
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


for _command in _COMMANDS:
    main.add_command(_command)
