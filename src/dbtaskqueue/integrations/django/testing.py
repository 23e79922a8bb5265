"""For tests of Django projects: what was enqueued, and running it in this thread.

class CheckoutTest(TaskTestMixin, TestCase):
    def test_checkout(self):
        with captured_tasks() as tasks:
            checkout("Ann")
        self.assertEnqueued(write_receipt, 1)
        tasks.run()
"""

from __future__ import annotations

import contextlib
import unittest
from collections.abc import Iterator, Sequence
from typing import Any, overload

from django.tasks import Task, TaskContext, TaskResult, TaskResultStatus
from django.tasks.backends.base import BaseTaskBackend
from django.tasks.exceptions import TaskResultDoesNotExist
from django.tasks.signals import task_enqueued
from django.utils import timezone
from django.utils.asyncio import async_unsafe
from django.utils.json import normalize_json

from dbtaskqueue import TaskQueue, TaskState
from dbtaskqueue.testing import run_tasks

from .results import failures

_MOST_SHOWN = 20
_MOST_RUN = 10_000


class CapturedTasks(Sequence[TaskResult]):
    """The tasks that were enqueued during a block, in this order, without those that were rolled back."""

    def __init__(self) -> None:
        self._results: list[TaskResult] = []
        self._ran: set[int] = set()

    def _add(self, sender: type, task_result: TaskResult, **kwargs: object) -> None:
        self._results.append(task_result)

    def _existing(self) -> list[TaskResult]:
        """Return the tasks that exist in the database. After a rollback, the next task may get the same id."""
        newest = {(result.backend, result.id): result for result in self._results}
        kept = []
        for result in self._results:
            if newest[result.backend, result.id] is result and _exists(result):
                kept.append(result)
        return kept

    def __len__(self) -> int:
        return len(self._existing())

    @overload
    def __getitem__(self, index: int) -> TaskResult: ...

    @overload
    def __getitem__(self, index: slice) -> list[TaskResult]: ...

    def __getitem__(self, index: int | slice) -> TaskResult | list[TaskResult]:
        return self._existing()[index]

    def __iter__(self) -> Iterator[TaskResult]:
        return iter(self._existing())

    def __repr__(self) -> str:
        return f"<CapturedTasks {[_shown(result) for result in self._existing()]}>"

    def run(self) -> list[TaskResult]:
        """Run the tasks in this thread, on the connections of the test, and return them with their results.

        They run in the order in which they were enqueued, whatever their priority and ``run_after`` are. Those that
        they enqueue run afterwards. Each runs once. The first exception is raised, as the function has raised it.
        In the database, the tasks stay as they are.
        """
        ran: list[TaskResult] = []
        with self.capturing(), _Runner() as runner:
            while waiting := [result for result in self._existing() if id(result) not in self._ran]:
                for result in waiting:
                    self._ran.add(id(result))
                    if not result.is_finished:  # the ImmediateBackend has run it
                        runner.run(result)
                    ran.append(result)
                    if len(ran) > _MOST_RUN:
                        raise RuntimeError(f"more than {_MOST_RUN} tasks ran: do they enqueue each other?")
        return ran

    @contextlib.contextmanager
    def capturing(self) -> Iterator[None]:
        """Add the tasks that are enqueued during the block. Blocks may be nested."""
        key = object()
        task_enqueued.connect(self._add, weak=False, dispatch_uid=key)
        try:
            yield
        finally:
            task_enqueued.disconnect(dispatch_uid=key)

    def find(self, task: Task, *args: Any, **kwargs: Any) -> list[TaskResult]:
        """Return the calls of a task with these arguments, or all of its calls if there are no arguments."""
        calls = [result for result in self._existing() if result.task.func == task.func]
        if not args and not kwargs:
            return calls
        wanted = normalize_json(list(args)), normalize_json(kwargs)
        return [result for result in calls if (result.args, result.kwargs) == wanted]


@contextlib.contextmanager
def captured_tasks() -> Iterator[CapturedTasks]:
    """Collect the tasks that the block enqueues, with any backend of the project."""
    captured = CapturedTasks()
    with captured.capturing():
        yield captured


class TaskTestMixin(unittest.TestCase):
    """A mixin of test classes, before Django's: ``class MyTest(TaskTestMixin, TestCase)``.

    ``enqueued`` has the tasks that the test and its ``setUp`` have enqueued.
    """

    enqueued: CapturedTasks

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, and capture the tasks that it enqueues."""
        with captured_tasks() as self.enqueued:
            return super().run(result)

    def assertEnqueued(self, task: Task, *args: Any, **kwargs: Any) -> TaskResult:  # noqa: N802 (unittest's style)
        """Fail unless the test has enqueued this call; return the newest one. Without arguments, any call fits."""
        found = self.enqueued.find(task, *args, **kwargs)
        if not found:
            self.fail(f"{_call(task, args, kwargs)} was not enqueued; {self._listed()}")
        return found[-1]

    def assertNotEnqueued(self, task: Task, *args: Any, **kwargs: Any) -> None:  # noqa: N802
        """Fail if the test has enqueued this call. Without arguments, any call fits."""
        if self.enqueued.find(task, *args, **kwargs):
            self.fail(f"{_call(task, args, kwargs)} was enqueued; {self._listed()}")

    def _listed(self) -> str:
        shown = [_shown(result) for result in self.enqueued]
        more = f"\n  and {len(shown) - _MOST_SHOWN} more" if len(shown) > _MOST_SHOWN else ""
        return (
            "enqueued were:" + "".join(f"\n  {line}" for line in shown[:_MOST_SHOWN]) + more if shown else "no task was"
        )


def _exists(result: TaskResult) -> bool:
    backend = result.task.get_backend()
    if not backend.supports_get_result:
        return True
    try:
        _read(backend, result.id)
    except TaskResultDoesNotExist:
        return False
    return True


@async_unsafe(
    "An async test must read captured tasks through sync_to_async, in the thread that has the test's transaction:"
    " await sync_to_async(self.assertEnqueued)(task)"
)
def _read(backend: BaseTaskBackend, id: str) -> TaskResult:
    """Read a task. In the thread of an event loop, tasks of the test's transaction would not be found."""
    return backend.get_result(id)


class _Runner:
    """Runs captured tasks in this thread, as tasks of a queue in a temporary file: ``current_task()`` works in them."""

    def __init__(self) -> None:
        self._results: list[TaskResult] = []

    def __enter__(self) -> _Runner:
        self._queue = TaskQueue("sqlite:///:memory:")
        self._function = self._queue.task(name="captured", max_attempts=1)(self._call)
        return self

    def __exit__(self, *raised: object) -> None:
        self._queue.close()

    def run(self, result: TaskResult) -> None:
        """Run a task, and set in its result object what a worker would have stored. Raises the task's exception."""
        self._results.append(result)
        started = timezone.now()
        _set(result, status=TaskResultStatus.RUNNING, started_at=started, last_attempted_at=started)
        result.worker_ids.append("test")
        task = self._function.enqueue(len(self._results) - 1)
        try:
            run_tasks(self._queue)
        finally:
            ended = task.refresh()
            done = ended.state == TaskState.DONE
            result.errors.extend(failures(ended))
            status = TaskResultStatus.SUCCESSFUL if done else TaskResultStatus.FAILED
            _set(result, status=status, finished_at=ended.finished_at, _return_value=ended.result)

    def _call(self, number: int) -> Any:
        result = self._results[number]
        context = [TaskContext(task_result=result)] if result.task.takes_context else []
        return normalize_json(result.task.call(*context, *result.args, **result.kwargs))


def _set(result: TaskResult, **values: object) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)  # as Django's own backends do: a result is frozen for its users


def _shown(result: TaskResult) -> str:
    return _call(result.task, result.args, result.kwargs)


def _call(task: Task, args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    arguments = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
    return f"{task.module_path}({', '.join(arguments) or '…'})"
