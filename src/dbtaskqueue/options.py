"""The options of tasks, task functions and workers: each is defined once, here.

A class below lists the options of one call. The type of each option carries an ``Option``: its default, its check,
where it is stored, and its flag on the command line. ``TaskQueue.enqueue``, ``using``, ``@queue.task``, ``Worker`` and
the command line all use these. A new option of a task takes an entry here, a parameter of ``TaskQueue.enqueue`` and
``enqueue_many`` (written out there for editors; a test compares them), and a line in the documentation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, get_args, get_type_hints

from ._formats import payload, quantities, task_options
from ._formats.limits import check_limits
from ._formats.payload import JSON
from ._store.contract import MAX_PARENTS
from ._system import clock
from .checks import (
    MOST,
    PRIORITIES,
    check_count,
    check_delay,
    check_function,
    check_key,
    check_lease,
    check_priority,
    check_queue,
    check_seconds,
    refuse_async,
    shown,
)
from .dependencies import (
    AnyTask,
    When,
    check_after,
    check_before,
    check_expires_at,
    check_expires_in,
    check_when,
)
from .dependencies import expires_at as when_it_expires
from .errors import PayloadError
from .retry import DEFAULT, RetryPolicy, check_max_attempts, check_policy

MAX_META = 8 * 1024
"""The most bytes that the JSON of ``meta`` may have."""

Backoff = Callable[[BaseException, int], float | timedelta | None]
"""Called with the error and the number of the failed attempt: the delay before the next one, or None to abandon."""

ExecutorName = Literal["thread", "process", "asyncio"]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An option on the command line.

    ``parse`` turns its text into a value and raises ValueError. ``default`` replaces the option's own. ``range`` makes
    it a whole number from the first to the last. A flag without ``metavar``, ``range`` and ``words`` takes no value.
    A ``repeatable`` one may be given several times: ``parse`` gets a tuple of texts, which is empty without the flag.
    """

    name: str
    help: str
    metavar: str | None = None
    parse: Callable[[Any], object] | None = None
    range: tuple[int, int] | None = None
    words: tuple[str, ...] = ()
    default: object = None
    repeatable: bool = False


@dataclass(frozen=True, kw_only=True)
class Option:
    """What is known about an option besides its name and its type.

    ``check`` returns the value to use, or raises ValueError or TypeError; it is not called for the default. ``column``
    is where the task's row stores it: a column of its own, "options" for a key in that JSON column, "waits" for what
    has tables of its own (see Waits in ``_store/contract.py``), or None.
    """

    check: Callable[[Any], Any]
    default: object = None
    column: str | None = None
    flag: Flag | None = None


def _check_max_attempts(value: int) -> int:
    check_max_attempts(value, or_none=False)
    return value


def _check_start_at(moment: datetime) -> datetime:
    clock.from_datetime(moment)
    return moment


def encode_meta(meta: Mapping[str, JSON]) -> str:
    """Return ``meta`` as the JSON text that is stored. Raises PayloadError."""
    if not isinstance(meta, Mapping):
        raise PayloadError(f"meta must be a JSON object, not {type(meta).__name__}")
    return payload.encode(dict(meta), limit=MAX_META, name="meta")


def _check_backoff(backoff: Backoff) -> Backoff:
    if not callable(backoff):
        raise TypeError(f"backoff must be a function of the error and the attempt, not {shown(backoff)}")
    refuse_async(backoff, "backoff")
    return backoff


def _check_executor(executor: str) -> str:
    if executor not in get_args(ExecutorName):
        raise ValueError(f"executor must be one of {', '.join(get_args(ExecutorName))}, not {shown(executor)}")
    return executor


def _check_on_error(on_error: Callable[..., object]) -> Callable[..., object]:
    if not callable(on_error):
        raise TypeError(f"on_error must be callable, not {shown(on_error)}")
    refuse_async(on_error, "on_error")
    return on_error


def _parse_after(texts: Sequence[str]) -> list[AnyTask] | None:
    if not texts:
        return None
    found = check_after([id for text in texts for id in quantities.ids(text)])
    if len(found) > MAX_PARENTS:
        raise ValueError(f"a task may have at most {MAX_PARENTS:,} parents, not {len(found):,}")
    return found


# -- tasks -----------------------------------------------------------------------------------------


class Start(TypedDict, total=False):
    """When a task is due: at most one of these options; without any, now."""

    start_in: Annotated[
        float | timedelta | None,
        Option(
            check=lambda value: check_delay(value, "start_in"),
            column="due",
            flag=Flag(
                name="--in",
                metavar="DURATION",
                parse=quantities.seconds,
                help="Due after this time: 90 (seconds), 5m, 12h, 2d.",
            ),
        ),
    ]
    start_at: Annotated[
        datetime | None,
        Option(
            check=_check_start_at,
            column="due",
            flag=Flag(
                name="--at",
                metavar="TIME",
                parse=quantities.moment,
                help="Due at this time: 2030-01-31T12:00 in local time, 2030-01-31T12:00+01:00 in another time zone.",
            ),
        ),
    ]


class Defaults(TypedDict, total=False):
    """Options that a task function may set for all its tasks."""

    priority: Annotated[
        int,
        Option(
            check=check_priority,
            default=0,
            column="rank",
            flag=Flag(
                name="--priority",
                metavar="NUMBER",
                range=PRIORITIES,
                help="Tasks with a higher priority run first.",
            ),
        ),
    ]
    max_attempts: Annotated[
        int | None,
        Option(
            check=_check_max_attempts,
            column="budget",
            flag=Flag(
                name="--max-attempts",
                metavar="NUMBER",
                range=(1, MOST),
                help="Attempts before a failing task is abandoned; 10 if not given.",
            ),
        ),
    ]
    retry: Annotated[RetryPolicy | None, Option(check=check_policy, column="options")]
    time_limit: Annotated[
        float | timedelta | None,
        Option(
            check=lambda value: check_limits(value, None, None).time,
            column="options",
            flag=Flag(
                name="--time-limit",
                metavar="DURATION",
                parse=quantities.limit,
                help="Stop an attempt that takes longer: 90, 5m, …",
            ),
        ),
    ]
    stall_limit: Annotated[
        float | timedelta | None,
        Option(
            check=lambda value: check_limits(None, value, None).stall,
            column="options",
            flag=Flag(
                name="--stall-limit",
                metavar="DURATION",
                parse=quantities.limit,
                help="Stop an attempt that reports no progress for this time.",
            ),
        ),
    ]
    memory_limit: Annotated[
        int | None,
        Option(
            check=lambda value: check_limits(None, None, value).memory,
            column="options",
            flag=Flag(
                name="--memory-limit",
                metavar="SIZE",
                parse=quantities.size,
                help="Stop an attempt that uses more memory: 512M, 2G, …",
            ),
        ),
    ]


class ManyOptions(Start, Defaults, total=False):
    """Options of ``TaskQueue.enqueue_many``."""

    after: Annotated[
        AnyTask | Sequence[AnyTask] | None,
        Option(
            check=check_after,
            column="waits",
            flag=Flag(
                name="--after",
                metavar="ID,…",
                parse=_parse_after,
                repeatable=True,
                help="Wait for these tasks, its parents: 17, or 17,18,19. They may be in other queues. Repeatable.",
            ),
        ),
    ]
    when: Annotated[
        When,
        Option(
            check=check_when,
            default="done",
            column="waits",
            flag=Flag(
                name="--when",
                words=get_args(When),
                help="How its parents must end: all done; all ended, in any state; all ended, and one not done.",
            ),
        ),
    ]
    before: Annotated[AnyTask | None, Option(check=check_before, column="waits")]
    expires_in: Annotated[
        float | timedelta | None,
        Option(
            check=check_expires_in,
            column="expires",
            flag=Flag(
                name="--expires-in",
                metavar="DURATION",
                parse=lambda text: check_expires_in(quantities.seconds(text)),
                help="Abandon the task if no attempt has started within this time: 90 (seconds), 5m, 12h, 2d.",
            ),
        ),
    ]
    expires_at: Annotated[datetime | None, Option(check=check_expires_at, column="expires")]

    connection: Annotated[object, Option(check=lambda connection: connection)]
    meta: Annotated[Mapping[str, JSON] | None, Option(check=encode_meta, column="meta")]


class Options(ManyOptions, total=False):
    """Options of ``TaskQueue.enqueue``."""

    key: Annotated[
        str | None,
        Option(
            check=check_key,
            column="key",
            flag=Flag(
                name="--key",
                metavar="KEY",
                parse=check_key,
                help="Deduplicate: if an unfinished task of the queue has this key, print its id and add none.",
            ),
        ),
    ]


class UsingOptions(Options, total=False):
    """Options of ``TaskFunction.using``."""

    queue: Annotated[str | None, Option(check=check_queue, column="queue")]


class FunctionOptions(Defaults, total=False):
    """Options of ``@queue.task``."""

    name: Annotated[str | None, Option(check=check_function, column="function")]
    backoff: Annotated[Backoff | None, Option(check=_check_backoff)]


# -- workers ---------------------------------------------------------------------------------------


class WorkerOptions(TypedDict, total=False):
    """Options of ``Worker``, besides the queues that it serves."""

    concurrency: Annotated[
        int,
        Option(
            check=lambda value: check_count(value, "concurrency"),
            default=1,
            flag=Flag(
                name="--concurrency",
                metavar="NUMBER",
                range=(1, 1000),
                help="Number of tasks to run at the same time.",
            ),
        ),
    ]
    executor: Annotated[
        ExecutorName,
        Option(
            check=_check_executor,
            default="thread",
            flag=Flag(
                name="--executor",
                words=get_args(ExecutorName),
                default="process",
                help="How to run tasks: each in a child process, in threads, or as coroutines of one event loop.",
            ),
        ),
    ]
    lease: Annotated[
        float | timedelta,
        Option(
            check=check_lease,
            default=30.0,
            flag=Flag(
                name="--lease",
                metavar="DURATION",
                parse=lambda text: check_lease(quantities.seconds(text)),
                default="30s",
                help="Time without a heartbeat after which workers on other machines take over its tasks.",
            ),
        ),
    ]
    drain_timeout: Annotated[
        float | timedelta,
        Option(
            check=lambda value: check_seconds(value, "drain_timeout"),
            default=20.0,
            flag=Flag(
                name="--drain-timeout",
                metavar="DURATION",
                parse=quantities.seconds,
                default="20s",
                help="Time that running tasks get to finish when the worker stops.",
            ),
        ),
    ]
    on_error: Annotated[Callable[..., object] | None, Option(check=_check_on_error)]
    cancel_grace: Annotated[
        float | timedelta,
        Option(
            check=lambda value: check_seconds(value, "cancel_grace"),
            default=10.0,
            flag=Flag(
                name="--cancel-grace",
                metavar="DURATION",
                parse=quantities.seconds,
                default="10s",
                help="Time between SIGTERM and SIGKILL for a cancelled child process.",
            ),
        ),
    ]
    tasks_per_child: Annotated[
        int,
        Option(
            check=lambda value: check_count(value, "tasks_per_child"),
            default=1000,
            flag=Flag(
                name="--tasks-per-child",
                metavar="NUMBER",
                range=(1, MOST),
                help="Number of short tasks after which a child process is replaced.",
            ),
        ),
    ]
    allow_commands: Annotated[
        bool,
        Option(
            check=bool,
            default=False,
            flag=Flag(
                name="--allow-commands",
                help="Also run command lines (enqueue --command). Needs --executor process.",
            ),
        ),
    ]


class RunOptions(TypedDict, total=False):
    """Options of ``Worker.run`` that say when it returns."""

    burst: Annotated[
        bool,
        Option(
            check=bool,
            default=False,
            flag=Flag(name="--burst", help="Exit once no task is due and none is running."),
        ),
    ]
    max_tasks: Annotated[
        int | None,
        Option(
            check=lambda value: check_count(value, "max_tasks"),
            flag=Flag(name="--max-tasks", metavar="NUMBER", range=(1, MOST), help="Exit after this many tasks."),
        ),
    ]
    idle_timeout: Annotated[
        float | timedelta | None,
        Option(
            check=lambda value: check_seconds(value, "idle_timeout"),
            flag=Flag(
                name="--idle-timeout",
                metavar="DURATION",
                parse=quantities.seconds,
                help="Exit after this time without a task.",
            ),
        ),
    ]


# -- reading them ----------------------------------------------------------------------------------


@functools.cache
def options_of(call: type) -> Mapping[str, Option]:
    """Return what is known about each option of a call: one of the classes above."""
    hints = get_type_hints(call, include_extras=True)
    return {name: next(extra for extra in get_args(hint) if isinstance(extra, Option)) for name, hint in hints.items()}


def refuse_unknown(options: Mapping[str, object], call: type, function: str) -> None:
    """Raise TypeError for an option that the call does not have, as Python does for one in a signature."""
    unknown = set(options) - set(options_of(call))
    if unknown:
        raise TypeError(f"{function}() got an unknown option {sorted(unknown)[0]!r}")


@functools.cache
def defaults_of(call: type) -> Mapping[str, object]:
    """Return the default of each option of a call."""
    return {name: option.default for name, option in options_of(call).items()}


def given(options: Mapping[str, Any], call: type) -> dict[str, Any]:
    """Return the options that differ from their defaults."""
    defaults = defaults_of(call)
    return {name: value for name, value in options.items() if value is not defaults[name]}


def check_options(options: Mapping[str, Any], call: type) -> dict[str, Any]:
    """Check options, and return those that differ from their defaults.

    Raises ValueError, PayloadError or TypeError for an invalid value.
    """
    return {name: options_of(call)[name].check(value) for name, value in given(options, call).items()}


_IN_OPTIONS = {name for name, option in options_of(UsingOptions).items() if option.column == "options"}


class Columns(NamedTuple):
    """The columns of a task's row that its options set."""

    queue: str
    rank: int
    due: int
    budget: int | None
    key: str | None
    options: str | None
    meta: str | None
    expires: int | None = None


_usual_columns = functools.partial(tuple.__new__, Columns)
"""Makes Columns from a tuple, in half of the time that calling the class takes."""


def to_columns(options: Mapping[str, object], queue: str, policy: RetryPolicy, now: int) -> Columns:
    """Return the columns of a task that is enqueued now, in microseconds, by a queue with this retry policy.

    Raises what ``check_options`` raises, and ValueError for two options that exclude each other.
    """
    if policy is DEFAULT and _are_usual(options):
        return _usual_columns((queue, 0, now, policy.max_attempts, None, None, None, None))
    checked = check_options(options, UsingOptions)
    policy = checked.setdefault("retry", policy)
    return Columns(
        checked.get("queue", queue),
        -checked.get("priority", 0),
        _due(checked, now),
        checked.get("max_attempts", policy.max_attempts),
        checked.get("key"),
        task_options.encode({name: value for name, value in checked.items() if name in _IN_OPTIONS}),
        checked.get("meta"),
        when_it_expires(checked, now),
    )


_WAITS = tuple(name for name, option in options_of(UsingOptions).items() if option.column == "waits")


def checked_waits(options: Mapping[str, object]) -> dict[str, Any]:
    """Return the checked options that say what a task waits for, and ``start_at`` if it is given. Usually none."""
    if not any(name in options for name in ("after", "before", "when")):
        return {}
    some = {name: options[name] for name in (*_WAITS, "start_at") if name in options}
    return check_options(some, UsingOptions)


SELDOM = ("after", "when", "before", "expires_in", "expires_at")
"""Options that ``enqueue`` leaves out unless one of them is given."""
_USUAL = tuple(
    tuple(default for name, default in defaults_of(call).items() if name not in SELDOM)
    for call in (Options, ManyOptions)
)


def _are_usual(options: Mapping[str, object]) -> bool:
    """Return whether ``enqueue`` or ``enqueue_many`` was called without options, the usual call, which must be fast."""
    values = tuple(options.values())
    return not values or (values in _USUAL and type(options["priority"]) is int)


def _due(checked: Mapping[str, Any], now: int) -> int:
    if "start_in" in checked and "start_at" in checked:
        raise ValueError("give start_in or start_at, not both")
    if "start_in" in checked:
        return clock.after(now, checked["start_in"], "start_in")
    return clock.from_datetime(checked["start_at"]) if "start_at" in checked else now
