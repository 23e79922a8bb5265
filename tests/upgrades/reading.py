"""Read a database through the public interface, in the same way with every version of the program.

``v0_1_0/make.py`` calls these functions with the released program and writes down what they return. The tests call them
with the present program on the upgraded database. So use only names that all these versions have.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from json import loads
from typing import Any

from dbtaskqueue import Task, TaskQueue

ATTRIBUTES = (
    *("id", "queue", "state", "payload", "result", "error", "attempt", "max_attempts", "priority", "key"),
    *("created_at", "start_at", "started_at", "finished_at", "worker", "function", "token", "cancel_requested"),
    *("suspended", "is_command", "progress", "time_limit", "stall_limit", "memory_limit"),
)
OF_AN_ATTEMPT = (
    *("number", "token", "worker", "started_at", "finished_at", "outcome", "error", "output", "cpu_seconds"),
    "peak_memory",
)
OF_A_QUEUE = ("pending", "reserved", "running", "failed", "done", "cancelled", "abandoned", "workers", "paused")
OF_A_FUNCTION = ("function", "count", "failures", "p50", "p95", "cpu_p50", "peak_memory")
OF_A_WORKER = ("id", "host", "pid", "executor", "holds", "lease", "created_at")


def read_task(task: Task) -> dict[str, Any]:
    """Return the attributes and the attempts of a task, without those that are None, False or an empty list."""
    found = {name: plain(getattr(task, name)) for name in ATTRIBUTES}
    found["attempts"] = [
        _present({name: plain(getattr(attempt, name)) for name in OF_AN_ATTEMPT}) for attempt in task.attempts()
    ]
    return _present(found)


def read_queue(queue: TaskQueue) -> dict[str, Any]:
    """Return the counts of a queue, the ids that ``tasks`` lists, and its functions."""
    stats = queue.stats()
    return {
        **{name: getattr(stats, name) for name in OF_A_QUEUE},
        "tasks": [task.id for task in queue.tasks()],
        "functions": [
            _present({name: getattr(each, name) for name in OF_A_FUNCTION}) for each in queue.function_stats()
        ],
    }


def read_workers(url: str) -> list[dict[str, Any]]:
    """Return what ``dbtaskqueue workers`` lists, without the lost workers: it may forget these."""
    found = loads(command(url, "workers", "--json"))
    return [_present({name: worker[name] for name in OF_A_WORKER}) for worker in found if not worker["lost_at"]]


def read_usage(url: str, id: int) -> Any:
    """Return what ``dbtaskqueue show`` prints about the resources that a running task uses."""
    return loads(command(url, "show", "--json", str(id)))["usage"]


def delay_after_failure(task: Task) -> float | None:
    """Fail a fetched task; return the seconds until its retry, or None if that was its last attempt."""
    task.start()
    task.fail("once more")
    if task.state != "failed":
        return None
    ended = task.attempts()[-1].finished_at
    assert ended is not None
    return (task.start_at - ended).total_seconds()


def command(url: str, *arguments: str) -> str:
    """Run the command line of the version that this process imports; return what it printed."""
    line = [sys.executable, "-m", "dbtaskqueue", "--url", url, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def plain(value: Any) -> Any:
    """Return a value as JSON holds it."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return value


def _present(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None and value is not False and value != []}
