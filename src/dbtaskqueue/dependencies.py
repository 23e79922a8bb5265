"""Parents and children as users write them: ``after=``, ``before=``, tasks as arguments, and ``queue.flow()``.

``_store/verbs/dependencies.py`` stores them, and decides children when a parent ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, get_args

from ._store.contract import MAX_PARENTS, WANTS_DONE, WANTS_ENDED, WANTS_FAILED, Link, Waits
from ._system import clock
from .checks import check_seconds, counted, shown
from .errors import TaskQueueError

if TYPE_CHECKING:
    from typing_extensions import TypeVar  # for type checkers; at run time, a default needs 3.13

    from .task import Task

    R = TypeVar("R", covariant=True, default=Any)
else:
    from typing import TypeVar

    R = TypeVar("R", covariant=True)

When = Literal["done", "ended", "failed"]
WANTS: Mapping[str, int] = {"done": WANTS_DONE, "ended": WANTS_ENDED, "failed": WANTS_FAILED}


class Reference:
    """The base of ``Task`` and ``FlowTask``: a task that can be a parent, or an argument of a call."""

    _payload_hint = "; its result is filled in only where it is an argument itself, or is in a list"

    def as_link(self, url: str) -> Link:
        """Return the link to this parent, for a child in the database with this URL.

        Raises ValueError if it is in a different database.
        """
        raise NotImplementedError


class FlowTask(Reference, Generic[R]):
    """A task of a flow, which ``Flow.add`` returns. In the same flow, it can be used wherever a ``Task`` can.

    ``task``: the stored task, after the end of the block.
    """

    def __init__(self, flow: Flow, position: int) -> None:
        self._flow = flow
        self._position = position
        self._task: Task[R] | None = None

    def as_link(self, url: str) -> Link:
        """See Reference. Raises TaskQueueError for a child that is not in the same flow."""
        if self._task is not None:
            return self._task.as_link(url)
        if not self._flow.is_being_stored:
            if self._flow.is_over:
                raise TaskQueueError("an exception ended the block of this flow, so its tasks are not known")
            raise TaskQueueError(
                "a task of a flow is stored at the end of its block; add its children to the flow, too"
            )
        return Link(self._position, is_new=True)

    @property
    def task(self) -> Task[R]:
        """The stored task. Raises TaskQueueError before the end of the block, or if it stored nothing."""
        if self._task is None:
            if self._flow.is_over:
                raise TaskQueueError("this task of a flow is not stored: an exception ended the block")
            raise TaskQueueError("this task of a flow is not stored: its block has not ended")
        return self._task

    def __repr__(self) -> str:
        return f"<FlowTask {self._position}, not stored>" if self._task is None else f"<FlowTask {self._task!r}>"


AnyTask = Reference | int
"""What ``after`` and ``before`` take: a ``Task``, a ``FlowTask``, or an id."""


# -- options ---------------------------------------------------------------------------------------


def check_after(after: object) -> list[AnyTask]:
    """Return the parents that ``after`` names. Raises TypeError or ValueError."""
    given = [after] if isinstance(after, Reference | int) else after
    # an iterator would be empty the second time that the options are checked
    if isinstance(given, (str, bytes, Mapping, Iterator)) or not isinstance(given, Iterable):
        raise TypeError(f"after must be a Task, an id, or a list of them, not {shown(after)}")
    return [_check_reference(each, "after") for each in given]


def check_before(before: object) -> AnyTask:
    """Return the task that ``before`` names. Raises TypeError or ValueError."""
    return _check_reference(before, "before")


def check_when(when: object) -> When:
    """Return ``when``. Raises TypeError or ValueError."""
    if not isinstance(when, str):
        raise TypeError(f"when must be one of {', '.join(get_args(When))}, not {shown(when)}")
    if when not in WANTS:
        raise ValueError(f"when must be one of {', '.join(get_args(When))}, not {shown(when)}")
    return when  # type: ignore[return-value]


def _check_reference(value: object, name: str) -> AnyTask:
    if isinstance(value, bool) or not isinstance(value, Reference | int):
        raise TypeError(f"{name} must be a Task or an id, not {shown(value)}")
    if isinstance(value, int) and not 0 < value < 2**63:
        raise ValueError(f"{name} must be a task's id, not {shown(value)}")
    return value


# -- tasks as arguments ----------------------------------------------------------------------------


def has_references(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether arguments may contain tasks: one of them is a task or a list."""
    types = set(map(type, args))
    if kwargs:
        types |= set(map(type, kwargs.values()))
    return any(issubclass(kind, Reference | list | tuple) for kind in types)


def without_references(
    args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any], list[tuple[str, AnyTask]]]:
    """Return arguments with None in place of each task, and the tasks with their places, as JSON pointers."""
    found: list[tuple[str, AnyTask]] = []
    plain_args = [_without(value, f"/args/{index}", found) for index, value in enumerate(args)]
    plain_kwargs = {name: _without(value, f"/kwargs/{_escaped(name)}", found) for name, value in kwargs.items()}
    return plain_args, plain_kwargs, found


def _without(value: Any, place: str, found: list[tuple[str, AnyTask]]) -> Any:
    if isinstance(value, Reference):
        found.append((place, value))
        return None
    if isinstance(value, list | tuple) and has_references(value, {}):
        return [_without(each, f"{place}/{index}", found) for index, each in enumerate(value)]
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


# -- what the store gets ---------------------------------------------------------------------------


def to_waits(
    options: Mapping[str, Any], arguments: Sequence[tuple[str, AnyTask]], url: str, now: int, due: int, position: int
) -> Waits | None:
    """Return what a new task waits for, or None. ``options`` are checked ones; ``url`` is that of its database.

    ``position``: the number of tasks before it in the same call.
    Raises ValueError for too many parents, a task in a different database, and options that exclude each other.
    """
    after: Sequence[AnyTask] = options.get("after", ())
    before = options.get("before")
    if before is not None and (after or arguments):
        raise ValueError("give after or before, not both")
    places: dict[Link, list[str]] = {}
    for place, parent in arguments:
        places.setdefault(_link(parent, url), []).append(place)
    for parent in after:
        places.setdefault(_link(parent, url), [])
    if len(places) > MAX_PARENTS:
        raise ValueError(f"a task may have at most {MAX_PARENTS:,} parents, not {len(places):,}")
    if not places and before is None:
        return None
    if any(link.is_new and link.parent >= position for link in places):
        raise ValueError("a task of a flow can only wait for tasks that were added before it")
    links = [link._replace(arguments=json.dumps(given)) if given else link for link, given in places.items()]
    delay = None if "start_at" in options else max(0, due - now)
    child = None if before is None else _link(before, url)
    if child is not None and child.is_new:
        raise ValueError("before must be a task that is stored already; in a flow, use after")
    return Waits(links, WANTS[options.get("when", "done")], delay, None if child is None else child.parent)


def _link(parent: AnyTask, url: str) -> Link:
    return Link(parent) if isinstance(parent, int) else parent.as_link(url)


# -- flows -----------------------------------------------------------------------------------------


class Flow:
    """Tasks that are stored together at the end of a ``with`` block, or not at all: see ``TaskQueue.flow``."""

    def __init__(
        self,
        submit: Callable[[list[tuple[Any, Mapping[str, object]]]], list[Task]],
        check: Callable[[Mapping[str, object]], None],
    ) -> None:
        self._submit = submit
        self._check = check
        self._targets: list[tuple[Any, Mapping[str, object]]] = []
        self._tasks: list[FlowTask[Any]] = []
        self.is_over = False
        self.is_being_stored = False

    def add(self, target: Any, **options: Any) -> FlowTask[Any]:
        """Add a payload, a call that ``bind`` returned, or a ``Command``, with the options of ``TaskQueue.enqueue``.

        In this flow, the task that it returns can be used wherever a ``Task`` can: as an argument of a later call, and
        in ``after``. Raises TaskQueueError after the end of the block, and TypeError or ValueError for an invalid
        option.
        """
        if self.is_over:
            raise TaskQueueError("the block of this flow has ended; start another flow to add tasks")
        self._check(options)
        self._targets.append((target, options))
        self._tasks.append(FlowTask(self, len(self._tasks)))
        return self._tasks[-1]

    def __enter__(self) -> Flow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.is_over = True
        if error is not None or not self._targets:
            return
        self.is_being_stored = True
        try:
            stored = self._submit(self._targets)
        finally:
            self.is_being_stored = False
        for node, task in zip(self._tasks, stored, strict=True):
            node._task = task

    def __repr__(self) -> str:
        return f"<Flow of {counted(len(self._tasks), 'task')}>"


# -- expiry ----------------------------------------------------------------------------------------


def expires_at(options: Mapping[str, Any], now: int) -> int | None:
    """Return when a new task expires, from checked options, or None. Raises ValueError for both options."""
    if "expires_in" in options and "expires_at" in options:
        raise ValueError("give expires_in or expires_at, not both")
    if "expires_in" in options:
        return clock.after(now, options["expires_in"], "expires_in")
    return clock.from_datetime(options["expires_at"]) if "expires_at" in options else None


def check_expires_in(value: float | timedelta) -> float:
    """Return ``expires_in`` in seconds. Raises ValueError unless it is finite and greater than 0."""
    return check_seconds(value, "expires_in", finite=True, positive=True)


def check_expires_at(moment: datetime) -> datetime:
    """Return ``expires_at``. Raises the same errors as an invalid ``start_at``."""
    clock.from_datetime(moment)
    return moment
