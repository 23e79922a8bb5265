"""The command of workers: find what runs the tasks, log to stderr, work until told to stop."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

import click
from click.core import ParameterSource

from .._executors import EXECUTORS
from ..checks import MOST, check_lease, refuse_async_generator
from ..code import place_of, refer
from ..functions import TaskFunction
from ..log import event
from ..names import check_queue
from ..payload import JSON
from ..queue import TaskQueue
from ..signals import draining_until_exit
from ..url import mask, same_database
from ..worker import Worker
from .options import checked, seconds
from .output import console, harmless

Callback = Callable[[Any], JSON]

_NOT_FOUND = (
    "a child process cannot find {} again: it has to be a function of a module, or an object at the top of one or a"
    " method of that; or run it in threads: --executor thread"
)


def _positive_seconds(text: str) -> float:
    return check_lease(seconds(text))


def _queue_names(names: tuple[str, ...]) -> list[str]:
    return [check_queue(name) for name in names]


@click.command()
@click.argument("target", metavar="MODULE:NAME")
@click.option(
    "--queue",
    "queues",
    metavar="NAME",
    envvar=["DBTASKQUEUE_WORKER_QUEUE", "DBTASKQUEUE_QUEUE"],
    multiple=True,
    callback=checked(_queue_names),
    help="Serve this queue; may be repeated.",
)
@click.option("--concurrency", type=click.IntRange(1, 1000), default=1, help="Tasks that run at once.  [default: 1]")
@click.option(
    "--executor",
    type=click.Choice(list(EXECUTORS)),
    default="process",
    help="How they run: each in a process of its own, in threads, or as coroutines of one loop.  [default: process]",
)
@click.option("--burst", is_flag=True, help="End when nothing is due and all is done.")
@click.option(
    "--lease",
    metavar="DURATION",
    default="30s",
    callback=checked(_positive_seconds),
    help="The silence after which another machine may take its tasks.  [default: 30s]",
)
@click.option(
    "--drain-timeout",
    metavar="DURATION",
    default="20s",
    callback=checked(seconds),
    help="What running tasks get when it is to stop.  [default: 20s]",
)
@click.option(
    "--cancel-grace",
    metavar="DURATION",
    default="10s",
    callback=checked(seconds),
    help="What a process gets between SIGTERM and SIGKILL.  [default: 10s]",
)
@click.option(
    "--tasks-per-child",
    type=click.IntRange(1, MOST),
    default=1000,
    help="Short tasks that a process runs before a new one takes its place.  [default: 1000]",
)
@click.option("--allow-commands", is_flag=True, help="Run command lines (enqueue --command), too; in processes only.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.pass_context
def worker(
    ctx: click.Context,
    target: str,
    queues: list[str],
    concurrency: int,
    executor: str,
    burst: bool,
    lease: float,
    drain_timeout: float,
    cancel_grace: float,
    tasks_per_child: int,
    allow_commands: bool,
    log_level: str,
) -> None:
    """Run tasks until told to stop.

    SIGTERM and Ctrl-C let what runs come to its end; a second one stops it at once.

    MODULE:NAME is a function that gets the payload and returns the result, or a TaskQueue with task functions. Modules
    are found in the current directory, too. Each task runs in a process that has the module from a server that
    imports it once; what those cannot find can be run with --executor thread.
    """
    if allow_commands and executor != "process":
        raise click.UsageError(f"--allow-commands needs --executor process, not {executor}")
    found = _find(target, ctx.obj)
    if isinstance(found, TaskQueue):
        if not len(found.functions) and not allow_commands:
            raise click.ClickException(f"{target} has no task functions; does its module import those that have some?")
        _fit(found, target, ctx, lease)
    elif executor == "process" and refer(found) is None:
        raise click.ClickException(harmless(_NOT_FOUND.format(target)))
    set_up_logging(log_level)
    source, callback = (found, None) if isinstance(found, TaskQueue) else (ctx.obj, found)
    runs = {"functions": len(found.functions)} if isinstance(found, TaskQueue) else {"callback": target}
    options: dict[str, Any] = {
        "concurrency": concurrency,
        "executor": executor,
        "lease": lease,
        "drain_timeout": drain_timeout,
        "cancel_grace": cancel_grace,
        "tasks_per_child": tasks_per_child,
        "allow_commands": allow_commands,
    }
    works = Worker(source, queues=queues or None, **options)
    with draining_until_exit(works.stop):
        event(
            logging.INFO,
            "worker starts",
            pid=os.getpid(),
            database=mask(works.url),
            queues=",".join(works.queues),
            concurrency=concurrency,
            executor=executor,
            **runs,
        )
        works.run(callback, burst=burst)
        event(logging.INFO, "worker ends", pid=os.getpid())


# -- MODULE:NAME -----------------------------------------------------------------------------------


def _find(target: str, url: str | None) -> TaskQueue | Callback:
    """What MODULE:NAME names. A ``TaskQueue()`` without a URL in the module gets the command's."""
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise click.BadParameter(f"{target!r} is not of the form MODULE:NAME", param_hint="MODULE:NAME")
    if url is not None:
        os.environ["DBTASKQUEUE_URL"] = url
    found = _import(module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise click.ClickException(harmless(f"the module {module_name!r} has no {path!r}")) from None
    return _suitable(found, target)


def _fit(queue: TaskQueue, target: str, ctx: click.Context, lease: float) -> None:
    """What was asked for counts more than what the module's TaskQueue says; but its database is its own."""
    assert ctx.parent is not None
    asked = ctx.parent.get_parameter_source("url") is ParameterSource.COMMANDLINE
    if asked and not same_database(ctx.obj, queue.url):
        raise click.ClickException(f"{target} is a TaskQueue with a database of its own: leave out --url")
    if ctx.get_parameter_source("lease") is not ParameterSource.DEFAULT:
        queue.lease = lease


def _suitable(found: Any, target: str) -> TaskQueue | Callback:
    if isinstance(found, TaskFunction):
        raise click.ClickException(f"{target} is a task function; name the TaskQueue that it belongs to")
    if not isinstance(found, TaskQueue) and (not callable(found) or isinstance(found, type)):
        kind = f"the class {found.__name__}" if isinstance(found, type) else f"of the type {type(found).__name__}"
        raise click.ClickException(f"{target} is {kind}, neither a callback nor a TaskQueue")
    if not isinstance(found, TaskQueue):
        try:
            refuse_async_generator(found, target)
        except TypeError as error:
            raise click.ClickException(str(error)) from error
    return found


def _import(name: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            why = f"there is no module {error.name!r}, neither in {folder} nor installed"
        else:
            why = f"the module {name!r} cannot be imported: {type(error).__name__}: {error}{place_of(error)}"
        raise click.ClickException(harmless(why)) from error


# -- logging ---------------------------------------------------------------------------------------


class _Format(logging.Formatter):
    """``time level message field=value``, one line but for a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return harmless(super().formatMessage(record))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 (logging's name)
        return harmless(super().formatStack(stack_info), keep="\n")

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        return harmless(super().formatException(ei), keep="\n")


def set_up_logging(level: str) -> None:
    """Log to stderr, unless the user's module has set up logging itself."""
    handler: logging.Handler = logging.StreamHandler()
    pattern = "%(asctime)s %(levelname)s %(message)s"
    if sys.stderr.isatty():
        from rich.highlighter import NullHighlighter
        from rich.logging import RichHandler

        screen = console(stderr=True)
        handler = RichHandler(
            console=screen,
            show_path=False,
            highlighter=NullHighlighter(),
            log_time_format="%X",
            omit_repeated_times=False,
        )
        pattern = "%(message)s"
    handler.setFormatter(_Format(pattern))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("dbtaskqueue").setLevel(level.upper())
