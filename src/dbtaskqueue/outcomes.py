"""Turns the outcome of an attempt into the end to store. Only here is the retry policy applied. Pure."""

from __future__ import annotations

import functools
import logging
import os
import traceback
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple

from ._formats import payload, task_options
from ._store.contract import EXPIRED_BEFORE_RETRY, HAS_CHILDREN, End, Store, TaskRecord, Verdict
from ._system import clock
from ._system.backoff import doubling
from ._system.log import event
from .errors import AbandonTask, ReleaseTask, RetryTask
from .states import ABANDONED, CANCELLED, DONE, FAILED, PENDING, TaskState

_HERE = os.path.join(os.path.dirname(__file__), "")
DROPPED = "dropped by its holder"
_LONGEST_NAME = 500
"""The most characters of an exception class's name that are stored, as for the name of a task function."""
UNKNOWN_DELAYS = 5.0, 300.0
"""Seconds until a task that a worker has no code for is due again: the first time, and at most."""


_new_end = functools.partial(tuple.__new__, End)  # takes a third of the time of calling the class
_NOT_MEASURED = tuple(End._field_defaults[name] for name in ("error", "cpu", "memory", "unrun", "error_type"))


class Backoff(NamedTuple):
    """What the ``backoff`` of a task function returned for a failed attempt, in the process that ran the code.

    ``delay``: seconds until the task is due again; None abandons it. ``failure``: why ``backoff`` failed; then the
    task's policy applies.
    """

    delay: float | None = None
    failure: str | None = None


def fail(
    task: TaskRecord,
    error: BaseException | str,
    *,
    retry: bool = True,
    delay: float | None = None,
    started_at: int | None = None,
    backoff: Backoff | None = None,
) -> End:
    """Return the end of a failed attempt: due again by the task's policy, or final after the last attempt.

    ``delay`` in seconds overrides the policy; ``retry=False`` makes the end final; ``backoff`` may do either.
    ``started_at``: given if the start is not stored yet, so that the record's ``attempt`` is one too low.
    """
    if backoff is not None:
        retry, delay = _chosen_by(backoff, task)
    now = clock.now()
    attempt = task.attempt + (started_at is not None)
    final = not retry or (task.max_attempts is not None and attempt >= task.max_attempts)
    due = None if final else _due(task, attempt, delay, now)
    text = describe(error)
    if due is not None and task.expires is not None and due >= task.expires:
        final, due, text = True, None, f"{text.rstrip()}\n{EXPIRED_BEFORE_RETRY}"
    return End(
        "fail",
        task.id,
        task.token,
        now,
        due,
        final,
        started_at,
        error=text,
        error_type=type_name(error),
        flow=task.flow & HAS_CHILDREN,
    )


def finish(task: TaskRecord, result: str | None, at: int, started_at: int | None = None) -> End:
    """Return the end of a successful attempt. ``result`` is JSON text."""
    flow = task.flow & HAS_CHILDREN
    return _new_end(("finish", task.id, task.token, at, None, False, started_at, result, *_NOT_MEASURED, flow))


def release(task: TaskRecord, delay: float | timedelta | None = 0, *, started_at: int | None = None) -> End:
    """Return the end of a claim that spends no attempt. With ``delay`` None, the task keeps its due time."""
    now = clock.now()
    due = None if delay is None else clock.after(now, delay)
    return End("release", task.id, task.token, now, due, started_at=started_at)


def release_unknown(task: TaskRecord) -> End:
    """Return the release of a task that this worker has no code for. It spends no attempt, and its delay doubles.

    The delay depends on the number of claims since the last operator's retry, so no worker needs to count.
    """
    claims = task.token - task.retry_token - (task.retry_token > 0)  # the retry itself has also raised the token
    return release(task, doubling(claims - 1, *UNKNOWN_DELAYS))._replace(unrun=True)


def chosen_end(record: TaskRecord, error: BaseException, started_at: int | None = None) -> End | None:
    """Return the end that a task chose by raising RetryTask, AbandonTask or ReleaseTask, or None."""
    if isinstance(error, RetryTask):
        return fail(record, error, delay=error.delay, started_at=started_at)
    if isinstance(error, AbandonTask):
        return fail(record, error, retry=False, started_at=started_at)
    if isinstance(error, ReleaseTask):
        return release(record, error.delay, started_at=started_at)
    return None


INTENDED: dict[str, frozenset[TaskState]] = {
    "finish": frozenset({DONE}),
    "fail": frozenset({FAILED, ABANDONED, CANCELLED}),
    "release": frozenset({PENDING, CANCELLED}),
}
"""The states in which an end leaves a task. Under the token of a claim, only its holder can have stored them."""

_STATES = {"done": DONE, "failed": FAILED, "abandoned": ABANDONED, "cancelled": CANCELLED, "released": PENDING}
"""The state in which an end with this outcome leaves a task."""


def settled(store: Store, end: End, verdict: Verdict) -> Verdict:
    """Return the true verdict on an end that an earlier try, whose answer was lost, may have stored.

    An end is stored once: a second try finds nothing to change. So if the verdict says that nothing was stored, check
    the task's state and, if it was claimed or retried since, its attempts.
    Raises StoreUnavailable if that cannot be read.
    """
    if verdict.stored:
        return verdict
    if verdict.token == end.token:
        return verdict._replace(stored=verdict.state in INTENDED[end.verb])
    for attempt in store.attempts(end.id, end.token):
        if (attempt.token, attempt.finished_at) == (end.token, end.at) and attempt.outcome in _STATES:
            return Verdict(True, _STATES[attempt.outcome], end.token)
    return verdict


def retry_in(end: End, state: TaskState | None) -> float | None:
    """Return the seconds until a task that is in this state after its end is due again; None for never."""
    if state not in (FAILED, PENDING) or end.due is None:
        return None
    return round(max(0, end.due - end.at) / 1e6, 3)


def retry_time(task: TaskRecord, lost_before: int, now: int) -> int:
    """Return when a task whose worker was lost is due again: the first time now, later by its retry policy."""
    return now if lost_before == 0 else _due(task, task.attempt, None, now)


def describe(error: BaseException | str) -> str:
    """Return the text of an error to store: with its traceback, cut if it is very long."""
    if (text := getattr(error, "text_in_child", None)) is not None:
        error = str(text)
    if isinstance(error, BaseException):
        try:
            error = "".join(traceback.format_exception(type(error), error, _below_ours(error.__traceback__)))
        except Exception:  # the exception's own __str__ raises
            error = f"{type(error).__name__} (its text cannot be shown)"
    if not isinstance(error, str):
        raise TypeError(f"an error must be an exception or a text, not {type(error).__name__}")
    return payload.clip_error(error)


def type_name(error: BaseException | str) -> str | None:
    """Return the full name of an exception's class, or None for a text."""
    if not isinstance(error, BaseException):
        return None
    if (name := getattr(error, "type_in_child", None)) is not None:
        return str(name)
    kind = type(error)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return name.encode(errors="replace").decode().replace("\0", "?")[:_LONGEST_NAME]


def _below_ours(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback from where the user's code starts; all of it if that was never reached."""
    inner = trace
    while inner is not None and inner.tb_frame.f_code.co_filename.startswith(_HERE):
        inner = inner.tb_next
    return trace if inner is None else inner


def _chosen_by(backoff: Backoff, task: TaskRecord) -> tuple[bool, float | None]:
    """Return whether to retry, and after how many seconds; with None, the policy decides."""
    if backoff.failure is None:
        return backoff.delay is not None, backoff.delay
    event(
        logging.WARNING,
        "backoff= of a task function failed, the retry policy applies",
        task_id=task.id,
        queue=task.queue,
        function=task.function,
        error=backoff.failure,
    )
    return True, None


def _due(task: TaskRecord, attempt: int, delay: float | None, now: int) -> int:
    if delay is None:
        options = task_options.decode(task.options)
        if "retry" in options.unreadable:
            event(
                logging.WARNING,
                "the retry policy stored with a task cannot be read, the default applies",
                task_id=task.id,
                queue=task.queue,
            )
        delay = options.retry.delay_before(max(1, attempt - task.retry_base))
    return clock.after(now, delay)
