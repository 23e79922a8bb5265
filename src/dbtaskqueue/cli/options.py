"""Shared by commands: opening the queue, common options, and parsers of their values."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn, TypeVar

import click
from click.core import ParameterSource

from .._formats.payload import JSON
from .._formats.url import DEFAULT_URL, mask
from ..audit import MOST_OF_A_NAME, Actor
from ..checks import check_queue, check_served
from ..options import Flag, options_of
from ..queue import TaskQueue
from .completion import queue_names
from .output import escaped

Function = TypeVar("Function", bound=Callable[..., Any])
S = TypeVar("S")
T = TypeVar("T")


def open_queue(url: str | None, queue: str = "default", *, create: bool = False) -> TaskQueue:
    """Open the queue of a command. Only commands that add or run tasks create a missing database."""
    ctx = click.get_current_context(silent=True)
    if create and ctx is not None and (bound := bound_to(ctx)) is not None:
        bound.queue.open()  # which creates nothing if it was created with create=False
    return TaskQueue(url, queue, create=create)


class Bound(NamedTuple):
    """The queue that a command line is for, the names of queues that its worker serves, and the words before it.

    ``is_program``: whether the process ends after the command; None if its own command line decides. ``changes``: the
    files that have changed, for ``worker --reload``; None: Python files in the current directory.
    """

    queue: TaskQueue
    queues: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    is_program: bool | None = None
    changes: Callable[[], Iterable[set[str]]] | None = None


def bind(ctx: click.Context, bound: Bound) -> None:
    """Make the commands below ``ctx`` use a queue, in place of a URL and MODULE:NAME."""
    ctx.meta[_BOUND] = bound
    ctx.obj = bound.queue.url


def bound_to(ctx: click.Context) -> Bound | None:
    """Return the queue that the command line is for, or None."""
    found: Bound | None = ctx.meta.get(_BOUND)
    return found


_BOUND = f"{__name__}.bound"


def command_line(url: str | None, *words: str) -> str:
    """Return a command that the user may run next for the same database. A password in it is masked."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and (bound := bound_to(ctx)) is not None and bound.program:
        return shlex.join([*bound.program, *(word for word in words if word != "MODULE:NAME")])
    shown = mask(url or os.environ.get("DBTASKQUEUE_URL") or DEFAULT_URL)
    return shlex.join(["dbtaskqueue", "--url", shown, *words])


def checked(check: Callable[[S], T]) -> Callable[[click.Context, click.Parameter, S | None], T | None]:
    """Return a callback that replaces an option's value by what ``check`` returns. A ValueError is wrong usage."""

    def callback(ctx: click.Context, parameter: click.Parameter, value: S | None) -> T | None:
        try:
            return None if value is None else check(value)
        except ValueError as error:
            raise click.BadParameter(escaped(str(error)), ctx, parameter) from None

    return callback


def flags_of(call: type, command: str) -> Callable[[Function], Function]:
    """Add a flag for each of the call's options that has one (see ``options.py``).

    The command gets the values as keyword arguments, by the names of the options.
    """

    def add(function: Function) -> Function:
        for name, option in reversed(list(options_of(call).items())):
            if option.flag is not None:
                function = _click_option(name, option.flag, option.default, command)(function)
        return function

    return add


def _click_option(name: str, flag: Flag, default: object, command: str) -> Callable[[Function], Function]:
    kind = click.IntRange(*flag.range) if flag.range else click.Choice(flag.words) if flag.words else None
    return click.option(
        flag.name,
        name,
        metavar=flag.metavar,
        help=flag.help,
        type=kind,
        default=default if flag.default is None else flag.default,
        multiple=flag.repeatable,
        is_flag=kind is None and flag.metavar is None,
        callback=checked(flag.parse) if flag.parse else None,
        envvar=f"DBTASKQUEUE_{command}{flag.name[1:]}".upper().replace("-", "_"),
    )


def operator() -> Actor:
    """Return who runs the command, for the audit log: the login name and the host."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run with a user id that has no name
        name = f"uid-{os.getuid()}"
    return Actor(f"{name}@{socket.gethostname()}"[:MOST_OF_A_NAME], "cli")


def confirm(question: str) -> None:
    """Ask before a command deletes or abandons tasks."""
    click.confirm(question, abort=True, err=True)


def variable(text: str) -> tuple[str, str]:
    """Return the name and the value of NAME=VALUE. Raises ValueError."""
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ValueError(f"invalid variable {text!r}: must be NAME=VALUE")
    return name, value


def address(text: str) -> tuple[str, int]:
    """Return the host and the port of HOST:PORT. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"invalid address {text!r}: must be HOST:PORT, such as 127.0.0.1:9108 or [::1]:9108")
    return host, int(port)


def json_value(text: str) -> JSON:
    """Return the value of a JSON text. ``-`` reads the text from stdin, since it may be too long for an argument."""
    try:
        return json.loads(sys.stdin.buffer.read() if text == "-" else text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


# -- which database and which queue ----------------------------------------------------------------


def url_before_option(function: Function) -> Function:
    """Add the option in ``dbtaskqueue --url URL COMMAND``."""
    return click.option("--url", metavar="URL", help=_URL_HELP)(function)


def queue_before_option(function: Function) -> Function:
    """Add the option in ``dbtaskqueue --queue NAME COMMAND``. The command's own option has the default."""
    return click.option(
        "--queue",
        "queues",
        metavar="NAME",
        multiple=True,
        allow_from_autoenv=False,
        callback=checked(served_queues),
        shell_complete=queue_names,
        help="The queue, for commands that take one.",
    )(function)


def url_option(function: Function) -> Function:
    """Add ``--url URL`` to a command, which gets the URL by ``click.pass_obj``."""
    return click.option(
        "--url", metavar="URL", allow_from_autoenv=False, expose_value=False, callback=_use_url, help=_URL_HELP
    )(function)


_URL_HELP = f"The database.  [default: $DBTASKQUEUE_URL, else {DEFAULT_URL}]"


def _use_url(ctx: click.Context, parameter: click.Parameter, url: str | None) -> None:
    if url is not None:
        ctx.obj = url


def is_url_given(ctx: click.Context) -> bool:
    """Return whether the command line, not the environment, names the database."""
    given = ParameterSource.COMMANDLINE
    return given in (ctx.get_parameter_source("url"), ctx.find_root().get_parameter_source("url"))


def served_queues(names: tuple[str, ...]) -> list[str]:
    """Return names and patterns of queues. Raises ValueError if one is invalid."""
    return [check_served(name) for name in names]


def default_queue() -> str:
    """Return the queue that a command uses unless ``--queue`` is given."""
    ctx = click.get_current_context(silent=True)
    if ctx is not None and (bound := bound_to(ctx)) is not None:
        return bound.queue.name
    return os.environ.get("DBTASKQUEUE_QUEUE") or "default"


def queue_option(function: Function) -> Function:
    """Add ``--queue NAME`` to a command of one queue."""
    return _queue_option(default_queue, "The queue.  [default: $DBTASKQUEUE_QUEUE, else default]")(function)


def one_queue_option(function: Function) -> Function:
    """Add ``--queue NAME`` to a command that covers all queues without it."""
    help = "Only this queue.  [default: $DBTASKQUEUE_QUEUE, else all queues]"
    return _queue_option(lambda: os.environ.get("DBTASKQUEUE_QUEUE") or None, help)(function)


def optional_queue(help: str) -> Callable[[Function], Function]:
    """Add ``--queue NAME`` to a command for which the environment names none."""
    return _queue_option(lambda: None, help)


def _queue_option(default: Callable[[], str | None], help: str) -> Callable[[Function], Function]:
    return click.option(
        "--queue",
        metavar="NAME",
        default=default,
        callback=_one_queue,
        shell_complete=queue_names,
        help=help,
        show_default=False,
    )


def _one_queue(ctx: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    before = _queues_before(ctx, parameter)
    return checked(check_queue)(ctx, parameter, before[-1] if before else name)


def queues_option(function: Function) -> Function:
    """Add a repeatable ``--queue NAME``, which may be a pattern."""
    return click.option(
        "--queue",
        "queues",
        metavar="NAME",
        envvar=["DBTASKQUEUE_WORKER_QUEUE", "DBTASKQUEUE_QUEUE"],
        multiple=True,
        callback=_all_queues,
        shell_complete=queue_names,
        help="Serve this queue, or the queues that match a pattern such as 'mail*' or '*'. Repeatable."
        "  [default: $DBTASKQUEUE_QUEUE, else that of MODULE:NAME, else default]",
    )(function)


def _all_queues(ctx: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> list[str] | None:
    return _queues_before(ctx, parameter) or checked(served_queues)(ctx, parameter, names)


def _queues_before(ctx: click.Context, parameter: click.Parameter) -> list[str]:
    """Return the queues that were named before the command, or none if the command's own option is given."""
    if ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE:
        return []
    found: list[str] = ctx.find_root().params.get("queues") or []
    return found


def json_option(function: Function) -> Function:
    """``--json``."""
    return click.option("--json", is_flag=True, help="Print JSON, for programs.")(function)


def yes_option(function: Function) -> Function:
    """Add ``--yes``, which is required where stdin is not a terminal."""
    help = "Do not ask. Required where stdin is not a terminal."
    return click.option("--yes", is_flag=True, callback=_require_yes, help=help)(function)


def _require_yes(ctx: click.Context, parameter: click.Parameter, yes: bool) -> bool:
    require_yes(yes)
    return yes


def require_yes(yes: bool) -> None:
    """Refuse a command that would have to ask where stdin is not a terminal."""
    if not yes and not sys.stdin.isatty():
        ctx = click.get_current_context()
        raise click.UsageError(f"stdin is not a terminal; confirm {ctx.info_name} with --yes", ctx)
