"""``dbtaskqueue completion SHELL``, and what the shell completes from the database: queues and ids of tasks.

A shell asks at each press of Tab, so this reads little, waits for at most 0.2 s, and is silent if the database does not
answer or does not exist.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import click
from click.shell_completion import CompletionItem, get_completion_class

from ..queue import TaskQueue
from ..task import Task
from .output import escaped

T = TypeVar("T")

PATIENCE = 0.2
"""Seconds after which a shell gets no suggestions."""
_MOST = 20
_LONGEST_HELP = 60
_VARIABLE = "_DBTASKQUEUE_COMPLETE"
_WHERE = """Where to put it:

\b
  bash  eval "$(dbtaskqueue completion bash)"   in ~/.bashrc
  zsh   eval "$(dbtaskqueue completion zsh)"    in ~/.zshrc, below compinit
  fish  dbtaskqueue completion fish | source    in ~/.config/fish/config.fish
"""


@click.command(epilog=_WHERE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script for completion in your shell.

    It completes commands, options, names of queues, and ids of the newest tasks.
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "dbtaskqueue", _VARIABLE).source())


def queue_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the queues of the database whose names start with what was typed."""
    infos = _asked(ctx, lambda queue: [info for info in queue.queues() if info.name.startswith(incomplete)][:_MOST])
    return [CompletionItem(info.name, help=f"{info.pending} pending") for info in infos if info.name.isprintable()]


def task_ids(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the newest tasks of the queue that is named, else of all queues, with their functions and states."""
    name = ctx.params.get("queue")

    def newest(queue: TaskQueue) -> list[Task]:
        if isinstance(name, str):
            return queue.lane(name).tasks(limit=_MOST)
        return queue.find(all_queues=True, limit=_MOST).tasks

    tasks = _asked(ctx, newest)
    return [CompletionItem(str(task.id), help=_help(task)) for task in tasks if str(task.id).startswith(incomplete)]


def _help(task: Task) -> str:
    return escaped(f"{task.state} {task.function or ''}".strip())[:_LONGEST_HELP]


def _asked(ctx: click.Context, question: Callable[[TaskQueue], list[T]]) -> list[T]:
    """Ask the database of a command. Return the answer, or ``[]`` after an error or if there is no answer in time."""
    url = ctx.obj or ctx.find_root().params.get("url") or None
    answers: list[T] = []

    def ask() -> None:
        try:
            with TaskQueue(url, create=False) as queue:
                answers.extend(question(queue))
        except Exception:  # the user is typing: there is no place for an error
            answers.clear()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return list(answers)
