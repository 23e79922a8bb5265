"""The public surface: the names and signatures of the design page, and nothing else."""

from __future__ import annotations

import inspect
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import dbtaskqueue
from dbtaskqueue import (
    Attempt,
    FunctionStats,
    QueueInfo,
    QueueStats,
    RetryPolicy,
    RunningTask,
    Task,
    TaskQueue,
    TaskState,
    Worker,
    WorkerInfo,
)

# The public names of the design page.
NAMES = {
    *("TaskQueue", "Task", "Worker", "RetryPolicy", "TaskState", "QueueStats", "Attempt", "RunningTask", "Progress"),
    *(
        "FunctionStats",
        "HistoryPoint",
        "Retention",
        "QueueInfo",
        "WorkerInfo",
        "TaskCall",
        "Command",
        "Extension",
        "Coder",
    ),
    *(
        "Action",
        "AsyncTask",
        "AsyncTaskQueue",
        "Actor",
        "Blocked",
        "Bulk",
        "Found",
        "Parent",
        "Reason",
        "Schedule",
        "Tick",
    ),
    *("RetryTask", "AbandonTask", "ReleaseTask"),
    *("TaskQueueError", "ConfigurationError", "SchemaError", "PayloadError", "TaskNotFound", "InvalidTransition"),
    *("LeaseLost", "TaskFailed", "TaskCancelled", "StoreUnavailable", "ChildFailed", "LimitExceeded"),
    *("current_task", "track"),
}
NOT_YET = {
    TaskQueue: ["logs", "watch", "copy"],
}
LIMITS = "time_limit=None, stall_limit=None, memory_limit=None, meta=None"
OPTIONS = "start_in=None, start_at=None, priority=0, max_attempts=None, retry=None"
WAITS = "after=None, when='done', before=None, expires_in=None, expires_at=None"
TIMES = "cron=None, every=None, timezone='UTC'"
TICKS = "overlap='skip', catch_up='latest', window=86400, jitter=0"
BULK = "dry_run=False, progress=None, actor=None, all_queues=False, **filters"
SIGNATURES: dict[object, dict[str, str]] = {
    TaskQueue: {
        "__init__": (
            "url=None, queue='default', *, retry=RetryPolicy(), lease=30.0, create=True, open=True, extensions=(),"
            " coders=()"
        ),
        "enqueue": f"payload=None, *, {OPTIONS}, key=None, connection=None, {LIMITS}, {WAITS}",
        "enqueue_many": f"payloads, *, keys=None, {OPTIONS}, connection=None, {LIMITS}, {WAITS}",
        "flow": "",
        "periodic": f"*, {TIMES}, name=None, {TICKS}, args=(), kwargs=None",
        "schedule": f"name, target, *, {TIMES}, {TICKS}",
        "unschedule": "name, *, actor=None",
        "schedules": "",
        "enqueue_command": "argv, *, cwd=None, env=None, **options",
        "open": "url=None",
        "lane": "queue",
        "use": "extension",
        "fetch": "max_items=1, *, timeout=None",
        "next": "max_items=1, *, timeout=None",
        "get": "id, *, connection=None",
        "cancel": "id, *, running=True, actor=None",
        "wait_all": "tasks, timeout=None",
        "suspend": "id, *, actor=None",
        "continue_": "id, *, actor=None",
        "retry": "id, *, actor=None",
        "reschedule": "id, *, start_in=None, start_at=None, priority=None, queue=None, actor=None",
        "delete": "id, *, actor=None",
        "cancel_many": f"*, {BULK}",
        "retry_many": f"*, spread=0, {BULK}",
        "reschedule_many": f"*, start_in=None, start_at=None, to_priority=None, to_queue=None, {BULK}",
        "delete_many": f"*, {BULK}",
        "audit": "*, limit=100, before=None, who=None, verb=None, queue=None, task=None",
        "tasks": "*, state=None, limit=100, before=None",
        "find": "*, sort='newest', limit=100, cursor=None, all_queues=False, **filters",
        "stats": "",
        "function_stats": "",
        "history": "function=None, *, since='24h', step='10m'",
        "retention": "",
        "set_retention": "*, done=None, cancelled=None, abandoned=None, most=None, actor=None",
        "workers": "",
        "queues": "",
        "pause": "*, actor=None",
        "resume": "*, actor=None",
        "purge": "*, actor=None",
        "prune": "older_than, *, states=('done', 'cancelled'), actor=None",
        "add_msg": "data",
        "get_msg": "timeout=0",
        "remove_msg": "task",
        "task": "function=None, /, **options",
        "close": "",
        "__iter__": "",
        "__enter__": "",
    },
    Task: {
        "refresh": "*, connection=None",
        "start": "",
        "finish": "result=None",
        "fail": "error, *, retry=True",
        "release": "delay=0",
        "cancel": "*, running=True",
        "wait": "timeout=None",
        "get_result": "timeout=None",
        "attempts": "*, limit=None, before=None, output=False",
        "parents": "",
        "children": "",
        "__enter__": "",
    },
    Worker: {
        "__init__": (
            "url_or_queue=None, queue=None, *, queues=None, concurrency=1, executor='thread', lease=30.0,"
            " drain_timeout=20.0, on_error=None, cancel_grace=10.0, tasks_per_child=1000, allow_commands=False"
        ),
        "run": "callback=None, *, burst=False, max_tasks=None, idle_timeout=None, batch='auto'",
        "stop": "",
    },
    RetryPolicy: {
        "__init__": "delay=60.0, linear=5, factor=2.0, max_delay=86400.0, jitter=0.0, max_attempts=10",
        "delay_before": "n",
    },
    dbtaskqueue.RetryTask: {"__init__": "delay=None"},
    dbtaskqueue.AbandonTask: {"__init__": "reason"},
    dbtaskqueue.ReleaseTask: {"__init__": "delay=0"},
}
TASK_ATTRIBUTES = {
    *("id", "queue", "state", "payload", "result", "error", "attempt", "max_attempts", "priority", "key"),
    *("created_at", "start_at", "started_at", "finished_at", "worker", "function", "token"),
    *("cancel_requested", "progress", "suspended", "is_command", "time_limit", "stall_limit", "memory_limit"),
    *("meta", "deduplicated", "error_type", "blocked", "expires_at"),
}
RUNNING_ATTRIBUTES = {
    *("id", "queue", "payload", "attempt", "max_attempts", "token", "function", "cancelled", "should_stop"),
    *("progress", "checkpoint", "saved", "step", "transaction", "meta", "parents", "tick"),
    *("priority", "key", "created_at", "start_at", "started_at", "worker"),
}


def test_all_is_the_list_of_the_design_page() -> None:
    assert sorted(dbtaskqueue.__all__) == dbtaskqueue.__all__
    assert set(dbtaskqueue.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_can_be_imported_and_has_a_docstring(name: str) -> None:
    thing = getattr(dbtaskqueue, name)
    assert thing.__name__ == name
    assert inspect.getdoc(thing)


def test_later_features_do_not_exist_yet() -> None:
    for owner, names in NOT_YET.items():
        assert [name for name in names if hasattr(owner, name)] == []


def shape(function: Any) -> str:
    """Return a signature without annotations and without self."""
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name != "self"
    ]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    default = repr(RetryPolicy())
    return text[1:-1].replace(default, "RetryPolicy()")


CASES = [(owner, name, wanted) for owner, methods in SIGNATURES.items() for name, wanted in methods.items()]


@pytest.mark.parametrize(("owner", "name", "wanted"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_a_signature_is_that_of_the_design_page(owner: object, name: str, wanted: str) -> None:
    found = shape(getattr(owner, name))
    if owner is dbtaskqueue.AbandonTask:
        found = found.partition("=")[0]
    assert found == wanted


@pytest.mark.parametrize("owner", [TaskQueue, Task, Worker, RetryPolicy, RunningTask])
def test_every_public_method_and_attribute_has_a_docstring(owner: type) -> None:
    for name, thing in vars(owner).items():
        if not name.startswith("_") and (callable(thing) or isinstance(thing, property)):
            assert inspect.getdoc(thing), f"{owner.__name__}.{name}"


def test_attributes() -> None:
    assert {name for name, kind in vars(Task).items() if isinstance(kind, property)} == TASK_ATTRIBUTES
    assert {name for name in dir(RunningTask) if not name.startswith("_")} == RUNNING_ATTRIBUTES
    assert Attempt._fields == (
        *("number", "token", "worker", "started_at", "finished_at", "outcome", "error", "output"),
        *("cpu_seconds", "peak_memory", "error_type"),
    )
    assert FunctionStats._fields == (*("function", "count", "failures", "p50", "p95", "cpu_p50", "peak_memory"),)
    assert QueueStats._fields == (*map(str, TaskState), "oldest_due", "workers", "paused", "blocked")
    assert QueueInfo._fields == ("name", *QueueStats._fields)
    assert WorkerInfo._fields == (
        *("id", "host", "pid", "state", "elsewhere", "holds", "executor", "queues", "lease", "created_at", "lost_at"),
        "commands",
    )


def test_the_exception_tree() -> None:
    base = dbtaskqueue.TaskQueueError
    assert base.__base__ is Exception
    errors = [
        *("ConfigurationError", "SchemaError", "PayloadError", "TaskNotFound", "InvalidTransition"),
        *("LeaseLost", "TaskFailed", "TaskCancelled", "StoreUnavailable", "ChildFailed", "LimitExceeded"),
    ]
    for name in errors:
        assert base in getattr(dbtaskqueue, name).__mro__
    assert issubclass(dbtaskqueue.PayloadError, ValueError)
    assert issubclass(dbtaskqueue.TaskNotFound, LookupError)
    for name in ("RetryTask", "AbandonTask", "ReleaseTask"):
        assert not issubclass(getattr(dbtaskqueue, name), base)
        assert issubclass(getattr(dbtaskqueue, name), Exception)


@pytest.mark.parametrize(
    "error",
    [
        dbtaskqueue.TaskFailed("message", "traceback"),
        dbtaskqueue.StoreUnavailable("message", maybe_done=True),
        dbtaskqueue.RetryTask(5),
        dbtaskqueue.AbandonTask("reason"),
        dbtaskqueue.ReleaseTask(7),
        dbtaskqueue.LeaseLost("message"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_a_pickle(error: Exception) -> None:
    """A process pool pickles exceptions."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_the_version_is_that_of_the_distribution() -> None:
    project = Path(__file__).parent.parent.parent / "pyproject.toml"
    assert dbtaskqueue.__version__ == tomllib.loads(project.read_text())["project"]["version"]


def test_reprs_are_informative_and_show_no_passwords(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tasks.sqlite"
    with TaskQueue(url, "mail", retry=RetryPolicy(delay=0)) as queue:

        @queue.task(name="send")
        def send() -> str:
            reprs.append(repr(dbtaskqueue.current_task()))
            raise ValueError("x" * 100)

        reprs: list[str] = []
        task = send.enqueue()
        assert repr(task) == "<Task 1 mail send pending attempt=0>"
        assert repr(queue.enqueue()) == "<Task 2 mail pending attempt=0>"
        assert repr(queue) == f"<TaskQueue mail of {url}>"
        assert repr(send) == "<TaskFunction send>"
        assert repr(send.bind()) == "<TaskCall send()>"
        assert repr(Worker(queue, concurrency=4)) == f"<Worker mail of {url} executor=thread concurrency=4>"
        Worker(queue).run(max_tasks=1)
        assert reprs == ["<RunningTask 1 mail send attempt=1>"]
        [attempt] = task.attempts()
        assert repr(attempt).startswith(f"Attempt(number=1, token={attempt.token}, worker=")
        assert "outcome='failed', error='Traceback" in repr(attempt)
        assert len(repr(attempt)) < 500
    assert repr(RetryPolicy(delay=5)).startswith("RetryPolicy(delay=5.0, linear=5")
    server = TaskQueue("postgresql://me:secret@host/tasks", open=False)
    assert repr(server) == "<TaskQueue default of postgresql://me:***@host/tasks, not open>"


def test_tasks_are_equal_by_id_and_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with (
        TaskQueue("sqlite:///tasks.sqlite") as queue,
        TaskQueue(f"sqlite:///{tmp_path}/tasks.sqlite?synchronous=NORMAL", "mail") as same,
        TaskQueue("sqlite:///elsewhere.sqlite") as elsewhere,
    ):
        task, other = queue.enqueue_many([1, 2])
        assert task == queue.get(task.id) == same.get(task.id)
        assert task != other
        assert task != elsewhere.enqueue()
        assert task != task.id
        assert len({task, other, queue.get(task.id), same.get(other.id), *elsewhere.tasks()}) == 3
        task.cancel()
        assert task == same.get(task.id)


def test_the_package_is_typed() -> None:
    from helpers import source_of

    assert (source_of() / "py.typed").exists()


def in_the_reference() -> set[str]:
    """Return the names that docs/reference documents, such as "TaskQueue" and "TaskQueue.enqueue"."""
    names, current = set(), ""
    for page in ("api.md", "errors.md"):
        for line in (Path(__file__).parents[2] / "docs" / "reference" / page).read_text().splitlines():
            if found := re.fullmatch(r"\.\. auto\w+:: ([\w.]+)(?:\(\))?", line):
                current = found[1].removeprefix("dbtaskqueue.functions.")
                names.add(current)
            elif found := re.fullmatch(r" +:members:(.*)", line):
                members = found[1].split(",") if found[1] else dir(getattr(dbtaskqueue, current))
                names |= {f"{current}.{member.strip()}" for member in members}
    return names


def test_every_public_name_is_in_the_reference() -> None:
    names = in_the_reference()
    assert names >= NAMES
    methods = {(owner.__name__, name) for owner, members in SIGNATURES.items() for name in members}
    attributes = {("Task", name) for name in TASK_ATTRIBUTES} | {("RunningTask", name) for name in RUNNING_ATTRIBUTES}
    described_by_their_class = {"__init__", "TaskQueue.__enter__"}
    expected = {f"{owner}.{name}" for owner, name in methods | attributes if name not in described_by_their_class}
    assert expected - described_by_their_class <= names
