"""The command worker: find the code of the tasks, log to stderr, run tasks until stopped."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from .._executors.lookup import place_of, refer
from .._formats.payload import JSON
from .._formats.url import mask, same_database
from .._system.log import event
from .._system.signals import draining_until_exit
from ..checks import refuse_async_generator
from ..functions import TaskFunction
from ..options import RunOptions, WorkerOptions, options_of
from ..queue import TaskQueue
from ..worker import Worker
from . import reloading
from .commands import is_own_command_line
from .options import Bound, address, bound_to, checked, flags_of, is_url_given, queues_option, url_option
from .output import console, escaped

Callback = Callable[[Any], JSON]

_NOT_FOUND = (
    "a child process cannot find {}: it must be a function in a module, an object at the top of one, or a method of"
    " such an object; or run it in threads: --executor thread"
)

_EXAMPLES = """
\b
Examples:
  dbtaskqueue worker app:queue --concurrency 4
  dbtaskqueue worker app:send_mail --queue mail --queue 'news*'
  dbtaskqueue worker app:fetch --executor asyncio --concurrency 200
  dbtaskqueue worker app:queue --burst      # run what is due, then exit
  dbtaskqueue worker --allow-commands       # run command lines only
"""


@click.command(epilog=_EXAMPLES)
@click.argument("target", metavar="[MODULE:NAME]", required=False)
@queues_option
@flags_of(WorkerOptions, "worker")
@flags_of(RunOptions, "worker")
@click.option(
    "--alive-file",
    metavar="PATH",
    help="Touch this file every 5 s while the worker's own loops run, for a liveness probe.",
)
@click.option(
    "--http",
    metavar="HOST:PORT",
    callback=checked(address),
    help="Answer probes at /health/live and /health/ready. Port 0: a free one.",
)
@click.option(
    "--reload",
    is_flag=True,
    help="For development: restart when a Python file changes. Running tasks are returned to the queue after 1 s,"
    " without spending an attempt.",
)
@click.option(
    "--reload-dir",
    metavar="DIRECTORY",
    multiple=True,
    help="With --reload: watch this directory and those below it. Repeatable.  [default: the current directory]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="What to log to stderr.",
)
@url_option
@click.pass_context
def worker(
    ctx: click.Context,
    /,
    *,
    target: str | None = None,
    queues: list[str],
    log_level: str,
    alive_file: str | None,
    http: tuple[str, int] | None,
    reload: bool,
    reload_dir: tuple[str, ...],
    **options: Any,
) -> None:
    """Run tasks until stopped.

    MODULE:NAME is a TaskQueue with task functions, or a function that takes the payload and returns the result. The
    module is imported from the current directory or from the installed packages. Without MODULE:NAME, the worker runs
    command lines only, and needs --allow-commands.

    On SIGTERM or Ctrl-C, the worker claims no new tasks and gives running ones the drain timeout to finish. It then
    returns the rest to the queue without spending an attempt. A second signal makes it do that immediately.
    """
    executor = options["executor"]
    if options["allow_commands"] and executor != "process":
        raise click.UsageError(f"--allow-commands needs --executor process, not {executor}")
    bound = bound_to(ctx)
    if target is None and bound is None and not options["allow_commands"]:
        raise click.UsageError("name the code of the tasks as MODULE:NAME, or run command lines with --allow-commands")
    if reload_dir and not reload:
        raise click.UsageError("--reload-dir needs --reload")
    if reload:
        if ctx.get_parameter_source("drain_timeout") is ParameterSource.DEFAULT:
            options["drain_timeout"] = reloading.DRAIN_TIMEOUT
        if not reloading.is_child():
            set_up_logging(log_level)
            watch = None if bound is None or reload_dir else bound.changes
            watch = watch or partial(reloading.python_files, reload_dir or [os.curdir])
            ctx.exit(reloading.reload(watch, options["drain_timeout"] + options["cancel_grace"]))
    if executor == "process":
        # before _find, which adds the current directory to sys.path: a secrets.py there would replace Python's own
        importlib.import_module("dbtaskqueue._executors.process.executor")
    if bound is not None:
        code = _bound_code(bound, ctx)
    else:
        code = _Code(ctx.obj, None, {"commands": "only"}) if target is None else _code(target, ctx)
    is_program = None if bound is None else bound.is_program
    if is_program is None:
        is_program = is_own_command_line(ctx)
    if bound is None or is_program:
        set_up_logging(log_level)
    when_to_end = {name: options.pop(name) for name in options_of(RunOptions)}
    worker = Worker(code.source, queues=queues or code.queues, **options)
    # a program that continues, such as a test run, gets its handlers back: those of worker.run end with it
    with draining_until_exit(worker.stop) if is_program else nullcontext():
        event(
            logging.INFO,
            "worker starts",
            pid=os.getpid(),
            database=mask(worker.url),
            queues=",".join(worker.queues),
            concurrency=worker.concurrency,
            executor=executor,
            **code.fields,
        )
        with _probing(worker, alive_file, http):
            worker.run(code.callback, **when_to_end)
        event(logging.INFO, "worker ends", pid=os.getpid())


def _probing(worker: Worker, file: str | None, address: tuple[str, int] | None) -> AbstractContextManager[None]:
    if file is None and address is None:
        return nullcontext()
    from ..monitoring.liveness import probing  # http.server takes 20 ms to import

    return probing(worker, file, address)


class _Code(NamedTuple):
    """The code that a worker runs, a TaskQueue or a callback, and the fields that describe it in the log.

    ``queues``: those that it serves by default; None for that of the TaskQueue.
    """

    source: TaskQueue | str | None
    callback: Callback | None
    fields: dict[str, Any]
    queues: list[str] | None = None


def _bound_code(bound: Bound, ctx: click.Context) -> _Code:
    """Return the queue that the command line is for."""
    if not bound.queue.functions.names() and not ctx.params["allow_commands"]:
        raise click.ClickException("this application has no task functions")
    _fit(bound.queue, "this application", ctx)
    return _Code(bound.queue, None, {"functions": len(bound.queue.functions.names())}, [*bound.queues] or None)


def _code(target: str, ctx: click.Context) -> _Code:
    """Import what MODULE:NAME names, and check that a worker with these options can run it."""
    found = _find(target, ctx.obj)
    if isinstance(found, TaskQueue):
        if not found.functions.names() and not ctx.params["allow_commands"]:
            raise click.ClickException(
                f"{target} has no task functions; does its module import the modules that define them?"
            )
        _fit(found, target, ctx)
        return _Code(found, None, {"functions": len(found.functions.names())})
    if ctx.params["executor"] == "process" and refer(found) is None:
        raise click.ClickException(escaped(_NOT_FOUND.format(target)))
    return _Code(ctx.obj, found, {"callback": target})


def find_queue(target: str | None, ctx: click.Context) -> TaskQueue:
    """Return the TaskQueue that the command line is for, or import the one that MODULE:NAME names. Open it."""
    if (bound := bound_to(ctx)) is not None:
        return bound.queue.open()
    assert target is not None
    found = _find(target, ctx.obj)
    if not isinstance(found, TaskQueue):
        raise click.ClickException(f"{target} must be a TaskQueue")
    _fit(found, target, ctx)
    return found


# -- MODULE:NAME -----------------------------------------------------------------------------------


def _find(target: str, url: str | None) -> TaskQueue | Callback:
    """Return what MODULE:NAME names. A ``TaskQueue()`` without a URL in the module uses the command's."""
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        why = f"{target!r} is not of the form MODULE:NAME, such as app:queue"
        raise click.BadParameter(why, param_hint="MODULE:NAME")
    if "/" in module_name or module_name.endswith(".py"):
        why = f"{module_name!r} is not a module's name; {_module_for(module_name, path)}"
        raise click.BadParameter(why, param_hint="MODULE:NAME")
    if url is not None:
        os.environ["DBTASKQUEUE_URL"] = url
    found = _import(module_name)
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise click.ClickException(escaped(f"the module {module_name!r} has no {path!r}")) from None
    return _suitable(found, target)


def _fit(queue: TaskQueue, target: str, ctx: click.Context) -> None:
    """Apply command-line options to the module's TaskQueue. The database of an open one cannot be replaced."""
    if not queue.is_open:
        queue.open(ctx.obj if is_url_given(ctx) else None)
    elif is_url_given(ctx) and not same_database(ctx.obj, queue.url):
        raise click.ClickException(f"{target} is a TaskQueue with its own database: leave out --url")
    if ctx.get_parameter_source("lease") not in (None, ParameterSource.DEFAULT):
        queue.lease = ctx.params["lease"]


def _suitable(found: Any, target: str) -> TaskQueue | Callback:
    sync = getattr(found, "sync", None)
    if isinstance(sync, TaskQueue | TaskFunction):  # found is an AsyncTaskQueue or one of its functions
        found = sync
    if isinstance(found, TaskFunction):
        raise click.ClickException(f"{target} is a task function; name the TaskQueue that it belongs to")
    if not isinstance(found, TaskQueue) and (not callable(found) or isinstance(found, type)):
        kind = f"the class {found.__name__}" if isinstance(found, type) else f"of the type {type(found).__name__}"
        raise click.ClickException(f"{target} is {kind}; it must be a callback or a TaskQueue")
    if not isinstance(found, TaskQueue):
        try:
            refuse_async_generator(found, target)
        except TypeError as error:
            raise click.ClickException(str(error)) from error
    return found


def _module_for(file: str, path: str) -> str:
    """Return advice for a user who gave the path of a file in place of the name of a module."""
    parts = file.removeprefix("./").removesuffix(".py").split("/")
    if all(part.isidentifier() for part in parts):
        return f"perhaps you mean {'.'.join(parts)}:{path}"
    return "run the worker in the directory of the module, and name it without .py"


def _import(name: str) -> Any:
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            why = f"there is no module {error.name!r}, neither in {directory} nor installed"
        else:
            why = f"the module {name!r} cannot be imported: {type(error).__name__}: {error}{place_of(error)}"
        raise click.ClickException(escaped(why)) from error


# -- logging ---------------------------------------------------------------------------------------


class _Format(logging.Formatter):
    """Format a record as ``time level message field=value``: one line, except for a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        return escaped(super().formatMessage(record))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 (logging's name)
        return escaped(super().formatStack(stack_info), keep="\n")

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        return escaped(super().formatException(ei), keep="\n")


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
