"""Sentry: errors of tasks, and a transaction for each attempt, in the trace of the program that enqueued it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from dbtaskqueue import (
    AbandonTask,
    ChildFailed,
    Extension,
    PayloadError,
    ReleaseTask,
    RetryTask,
    RunningTask,
    TaskCancelled,
    Worker,
)
from dbtaskqueue.extension import NewTasksView, NewTaskView
from dbtaskqueue.integrations import missing

try:
    import sentry_sdk
except ImportError as error:
    raise missing("sentry", error) from None

if TYPE_CHECKING:
    from dbtaskqueue.task import EndedTask

Capture = Literal["abandoned", "failed", "all"]

ORIGIN = "auto.queue.dbtaskqueue"
_PAYLOAD_ERROR = f"{PayloadError.__module__}.{PayloadError.__qualname__}"
_META = "sentry"
"""The key in ``meta`` that has Sentry's two trace headers."""
_MOST_META = 2048
"""The most characters of these headers that are stored."""
_FLUSH = 2.0
"""Seconds for which the end of a process waits until its events are sent. A child has 5 s to leave."""


class SentryExtension(Extension):
    """An extension that reports to Sentry: ``TaskQueue(…, extensions=[SentryExtension()])``.

    ``capture``: which exceptions become events. "abandoned": those after which a task is not run again. "failed": those
    of every failed attempt. "all": also RetryTask, which a task raises to be run again. Releases and cancellations
    are never reported.

    Initialize Sentry with ``sentry_sdk.init`` at the top of a module that child processes import. Without that, the
    extension does nothing. The payload of a task is sent only with ``send_default_pii``. Raises ValueError for an
    unknown ``capture``.
    """

    def __init__(self, capture: Capture = "abandoned") -> None:
        if capture not in get_args(Capture):
            raise ValueError(f"capture must be one of {', '.join(get_args(Capture))}, not {capture!r}")
        self.capture = capture

    # -- where tasks are enqueued --------------------------------------------------------------------

    @contextlib.contextmanager
    def enqueue(self, new: NewTasksView) -> Iterator[None]:
        """See Extension: a span, if the program has a transaction."""
        if sentry_sdk.get_current_span() is None:
            yield
            return
        with sentry_sdk.start_span(op="queue.publish", name=new.queue, origin=ORIGIN) as span:
            span.set_data("messaging.system", "dbtaskqueue")
            span.set_data("messaging.destination.name", new.queue)
            yield
            if len(new.tasks) == 1:
                span.set_data("messaging.message.id", str(new.tasks[0].id))

    def enqueuing(self, new: NewTaskView) -> None:
        """See Extension: add the trace headers to the task's ``meta``."""
        if sentry_sdk.is_initialized():
            given = {"sentry-trace": sentry_sdk.get_traceparent(), "baggage": sentry_sdk.get_baggage()}
            headers = {name: value for name, value in given.items() if value}
            if headers and sum(map(len, headers.values())) <= _MOST_META:
                new.meta[_META] = {**headers}

    # -- where tasks run -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def attempt(self, task: RunningTask) -> Iterator[None]:
        """See Extension: a scope and a transaction, and an event for an exception if it is known to be captured."""
        if not sentry_sdk.is_initialized():
            yield
            return
        raised: BaseException | None = None
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            _describe(scope, task)
            with sentry_sdk.start_transaction(_transaction(task)) as transaction:
                transaction.set_data("messaging.system", "dbtaskqueue")
                transaction.set_data("messaging.destination.name", task.queue)
                transaction.set_data("messaging.message.id", str(task.id))
                transaction.set_data("messaging.message.retry.count", task.attempt - 1)
                try:
                    yield
                except BaseException as error:
                    raised = error
                    transaction.set_status("aborted" if _is_no_failure(error) else "internal_error")
                    if not task.cancelled and self._is_captured_here(task, error):
                        sentry_sdk.capture_exception(error)
                else:
                    transaction.set_status("ok")
        if raised is not None:
            raise raised

    def _is_captured_here(self, task: RunningTask | EndedTask, error: BaseException) -> bool:
        """Return whether ``attempt`` captures the exception: there, it has its stack and its breadcrumbs.

        Whether an attempt abandons its task is known there only if it is the last one, or if the task has chosen so.
        Otherwise ``ended`` captures it.
        """
        if _is_no_failure(error) or not _is_seen(error):
            return False
        if self.capture == "all" or _name_of(error) == AbandonTask.__name__ or _is_last(task):
            return True
        return self.capture == "failed" and _name_of(error) != RetryTask.__name__

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        """See Extension: send what is left at the end of the process."""
        try:
            yield
        finally:
            sentry_sdk.flush(timeout=_FLUSH)

    # -- in the worker -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def worker(self, worker: Worker) -> Iterator[None]:
        """See Extension: send what is left at the end of the worker."""
        with self.process():
            yield

    def ended(self, task: EndedTask, outcome: str, error: BaseException | None) -> None:
        """See Extension: capture what ``attempt`` could not, such as the death of a child or an exceeded limit."""
        if (error is None and outcome != "lost") or not sentry_sdk.is_initialized():
            return
        if task.state != "abandoned" and (task.state != "failed" or self.capture == "abandoned"):
            return
        if error is not None and _is_seen(error) and (outcome == "failed" or self._is_captured_here(task, error)):
            return
        with sentry_sdk.isolation_scope() as scope:
            scope.clear_breadcrumbs()
            _describe(scope, task)
            if error is None:
                _capture_text(task, "WorkerLost", task.error or "")
            elif isinstance(error, ChildFailed):
                scope.set_context("child", {"error": error.text_in_child})
                module, _, _ = (error.type_in_child or "").rpartition(".")
                _capture_text(task, error.name, str(error).removeprefix(f"{error.name}: "), module or None)
            else:
                sentry_sdk.capture_exception(error)


def _transaction(task: RunningTask) -> Any:
    """Return the transaction of an attempt, in the trace that enqueued the task."""
    stored = task.meta.get(_META)
    stored = stored if isinstance(stored, dict) else {}
    headers = {name: value for name, value in stored.items() if isinstance(value, str)}
    name = task.queue if task.function is None else task.function
    return sentry_sdk.continue_trace(headers, op="queue.process", name=name, source="task", origin=ORIGIN)


def _describe(scope: sentry_sdk.Scope, task: RunningTask | EndedTask) -> None:
    """Add what is known about the task to the events of a scope."""
    scope.set_tag("queue", task.queue)
    scope.set_tag("function", "callback" if task.function is None else task.function)
    scope.set_tag("attempt", task.attempt)
    about: dict[str, Any] = {"id": task.id, "attempt": task.attempt, "max_attempts": task.max_attempts}
    if sentry_sdk.get_client().should_send_default_pii():
        about["payload"] = task.payload
    scope.set_context("task", about)


def _capture_text(task: EndedTask, name: str, text: str, module: str | None = None) -> None:
    """Capture an error of which only the text is known, under the name of its class."""
    kind = {"type": name, "module": module, "value": text}
    function = "callback" if task.function is None else task.function
    sentry_sdk.capture_event({"level": "error", "exception": {"values": [kind]}, "fingerprint": [function, name]})


def _is_seen(error: BaseException) -> bool:
    """Return whether ``attempt`` has seen this error. A result that cannot be stored is found out after it."""
    name = getattr(error, "type_in_child", None)  # None also if the child died
    if name is None and error.__traceback__ is not None:  # else a worker has made it, such as LimitExceeded
        name = f"{type(error).__module__}.{type(error).__qualname__}"
    return name is not None and name != _PAYLOAD_ERROR


def _is_no_failure(error: BaseException) -> bool:
    return isinstance(error, ReleaseTask | TaskCancelled)


def _is_last(task: RunningTask | EndedTask) -> bool:
    return task.max_attempts is not None and task.attempt >= task.max_attempts


def _name_of(error: BaseException) -> str:
    """Return the name of the class of an exception, as it was in the child."""
    return error.name if isinstance(error, ChildFailed) else type(error).__name__
