"""The command line: ``dbtaskqueue [--url URL] COMMAND``.

Each group of commands has a file. ``commands.py`` has the main command: its help and its one-line errors.
"""

from __future__ import annotations

import click

from .audit import audit
from .bound import command_line_for as command_line_for
from .bulk import cancel, delete, reschedule, retry
from .commands import Commands
from .completion import completion
from .copying import copy
from .dashboard import dashboard, dashboard_user
from .demo import demo
from .dependencies import show_tree, why
from .doctor import doctor
from .find import find
from .health import health
from .history import retention, show_history, show_overdue
from .listing import list_queues, list_tasks, list_workers, stats
from .logs import logs
from .metrics import metrics
from .operating import continue_task, pause, prune, purge, resume, suspend
from .options import queue_before_option, url_before_option
from .producing import enqueue
from .schedules import schedules
from .schema import migrate
from .show import show
from .watch import watch
from .working import worker

GROUPS: dict[str, list[click.Command]] = {
    "Produce tasks": [enqueue],
    "Run tasks": [worker],
    "Dashboard": [dashboard, dashboard_user],
    "Inspect": [
        list_tasks,
        find,
        show,
        why,
        show_tree,
        logs,
        stats,
        list_queues,
        list_workers,
        show_history,
        show_overdue,
        watch,
    ],
    "Schedules": [schedules],
    "Operate": [
        retry,
        cancel,
        reschedule,
        delete,
        suspend,
        continue_task,
        pause,
        resume,
        purge,
        prune,
        retention,
        audit,
    ],
    "Monitor": [metrics, health],
    "Database": [migrate, copy, doctor],
    "Your shell": [completion],
    "Try it": [demo],
}


@click.group(
    cls=Commands,
    groups=GROUPS,
    invoke_without_command=True,
    context_settings={
        "auto_envvar_prefix": "DBTASKQUEUE",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "show_default": True,
    },
)
@url_before_option
@queue_before_option
@click.version_option(package_name="dbtaskqueue")
@click.pass_context
def main(ctx: click.Context, url: str | None, queues: tuple[str, ...]) -> None:
    """A persistent task queue for long-running tasks, on a SQL database.

    --url and --queue can be given before or after the command. Every option can also be set as an environment variable:
    DBTASKQUEUE_URL and DBTASKQUEUE_QUEUE for all commands, DBTASKQUEUE_WORKER_CONCURRENCY for "worker --concurrency",
    and so on. The options of a command: dbtaskqueue COMMAND --help
    """
    ctx.obj = url
    command = main.commands.get(ctx.invoked_subcommand or "")
    if queues and command is not None and not any("--queue" in parameter.opts for parameter in command.params):
        raise click.UsageError(f"the command {command.name} takes no --queue")
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)
