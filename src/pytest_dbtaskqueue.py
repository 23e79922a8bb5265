"""The pytest plugin of dbtaskqueue: fixtures for tests of programs that use a queue.

It does nothing for tests that use neither its fixtures nor its marker. It imports dbtaskqueue only when a fixture is
used, because what is imported with the plugins is imported before a measurement of test coverage starts.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dbtaskqueue import Task, TaskQueue, Worker

NAME = "dbtaskqueue"
MARKER = (
    'dbtaskqueue(queue="package.module:queue", inline=False, executor="thread", concurrency=1): use the fixture'
    " task_queue. queue: the program's queue, which uses a fresh database in the test. inline: run each task when it is"
    " enqueued. executor, concurrency: of the fixture task_worker."
)
_OPTIONS = {"queue", "inline", "executor", "concurrency"}
_STOP = 30.0
"""Seconds for which ``task_worker`` waits for its worker to stop."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that names the queue of the whole project."""
    help = "The queue of this project for the fixture task_queue, as package.module:queue"
    parser.addini("dbtaskqueue_queue", help, default=None)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", MARKER)


@pytest.hookimpl(tryfirst=True)  # before pytest-django sorts tests by their marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let marked tests use ``task_queue``. With pytest-django, tests with a worker are not in a transaction."""
    for item in items:
        names = getattr(item, "fixturenames", [])
        if item.get_closest_marker(NAME) is not None and "task_queue" not in names:
            names.append("task_queue")
        if "task_worker" in names and item.config.pluginmanager.has_plugin("django"):
            item.add_marker(pytest.mark.django_db(transaction=True))


@pytest.fixture
def task_queue_url(tmp_path: Path) -> str:
    """The URL of the database of ``task_queue``: a new SQLite file for each test. Override it to use another one."""
    return f"sqlite:///{tmp_path}/taskqueue.sqlite"


@pytest.fixture
def task_queue(request: pytest.FixtureRequest, task_queue_url: str) -> Iterator[TaskQueue]:
    """A queue in an empty database: the program's queue if the marker or the setting names it, else a new one.

    Of an ``AsyncTaskQueue``, it is the ``TaskQueue``: its attribute ``sync``.
    """
    from dbtaskqueue import TaskQueue
    from dbtaskqueue.testing import inline, override

    options = _options(request)
    with contextlib.ExitStack() as stack:
        if (path := options.get("queue") or request.config.getini("dbtaskqueue_queue")) is not None:
            queue = _load(path)
            stack.enter_context(override(queue, task_queue_url))
        else:
            queue = stack.enter_context(TaskQueue(task_queue_url))
        if options.get("inline"):
            stack.enter_context(inline(queue))
        yield queue


@pytest.fixture
def run_tasks(task_queue: TaskQueue) -> Callable[..., list[Task]]:
    """``dbtaskqueue.testing.run_tasks`` for ``task_queue``, or for a lane: ``run_tasks(queue="mail")``."""
    from dbtaskqueue.testing import run_tasks

    def run(*, queue: str | None = None, **options: Any) -> list[Task]:
        return run_tasks(task_queue if queue is None else task_queue.lane(queue), **options)

    return run


@pytest.fixture
def assert_enqueued(task_queue: TaskQueue) -> Callable[..., Task]:
    """``dbtaskqueue.testing.assert_enqueued`` for ``task_queue``."""
    from dbtaskqueue.testing import assert_enqueued

    def check(*arguments: Any, **options: Any) -> Task:
        __tracebackhide__ = True
        return assert_enqueued(task_queue, *arguments, **options)

    return check


@pytest.fixture
def task_worker(request: pytest.FixtureRequest, task_queue: TaskQueue) -> Iterator[Worker]:
    """A worker that runs all tasks of the database of ``task_queue`` during the test, and is stopped at its end.

    The marker sets ``executor`` ("thread", "asyncio" or "process") and ``concurrency``.
    """
    from dbtaskqueue import Worker

    options = {name: value for name, value in _options(request).items() if name in ("executor", "concurrency")}
    worker = Worker(task_queue, queues=["*"], drain_timeout=0, **options)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            worker.run()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="dbtaskqueue-worker", daemon=True)
    thread.start()
    yield worker
    worker.stop()
    thread.join(_STOP)
    if errors:
        raise errors[0]
    if thread.is_alive():
        pytest.fail(f"the worker still runs {_STOP:g} s after the end of the test: a task has not returned")


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the options of all markers of the test, the closest first. Raises UsageError for an unknown one."""
    options: dict[str, Any] = {}
    for marker in request.node.iter_markers(NAME):
        if marker.args or not set(marker.kwargs) <= _OPTIONS:
            raise pytest.UsageError(f"the marker {NAME} has only the options {', '.join(sorted(_OPTIONS))}")
        options = {**marker.kwargs, **options}
    return options


def _load(path: object) -> TaskQueue:
    """Return the queue at a path such as ``package.module:queue``. Raises UsageError if there is none."""
    from dbtaskqueue import TaskQueue

    module, colon, name = str(path).partition(":")
    if not (module and colon and name):
        raise pytest.UsageError(f"the queue must be given as package.module:queue, not {path!r}")
    queue = import_module(module)
    for part in name.split("."):
        queue = getattr(queue, part, None)  # type: ignore[assignment]
    found = queue if isinstance(queue, TaskQueue) else getattr(queue, "sync", None)
    if not isinstance(found, TaskQueue):
        raise pytest.UsageError(f"{path!r} is {type(queue).__name__}, not a TaskQueue")
    return found
