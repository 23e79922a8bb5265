"""The commands that only look: list, show, stats, workers. None of them makes a database."""

from __future__ import annotations

from typing import Any

import click

from .._store.base import WorkerRecord
from ..clock import to_datetime
from ..queue import TaskQueue
from ..states import TaskState
from ..task import Attempt, Task
from .options import json_option, open_queue, queue_option
from .output import attributes, compact, counted, fields, local, note, print_json, readable, table


@click.command("list")
@queue_option
@click.option("--state", type=click.Choice([str(state) for state in TaskState]), help="Only tasks in this state.")
@click.option("--limit", type=click.IntRange(min=1), default=100, help="At most so many.  [default: 100]")
@json_option
@click.pass_obj
def list_tasks(url: str | None, queue: str, state: str | None, limit: int, json: bool) -> None:
    """Show the tasks of a queue, newest first."""
    with open_queue(url, queue) as lane:
        tasks = lane.tasks(state=state, limit=limit)
    if json:
        print_json([attributes(task) for task in tasks])
    elif tasks:
        table(("id", "state", "attempt", "due", "payload"), [_row(task) for task in tasks])
    else:
        note(f"no {state or ''} tasks in the queue {queue!r}".replace("  ", " "))


def _row(task: Task) -> tuple[str, ...]:
    return str(task.id), str(task.state), _attempt_of(task), local(task.start_at), _what(task)


def _attempt_of(task: Task) -> str:
    return str(task.attempt) if task.max_attempts is None else f"{task.attempt}/{task.max_attempts}"


def _what(task: Task) -> str:
    payload = _shown(task, "payload")
    return payload if task.function is None else f"{task.function} {payload}"


def _shown(task: Task, name: str) -> str:
    damaged = object()
    value = readable(task, name, damaged)
    return f"(the {name} cannot be read)" if value is damaged else compact(value)


@click.command()
@click.argument("id", type=int)
@json_option
@click.pass_obj
def show(url: str | None, id: int, json: bool) -> None:
    """Show everything about a task."""
    with open_queue(url) as lane:
        task = lane.get(id)
        attempts = task.attempts()
    if json:
        print_json({**attributes(task), "attempts": [attempt._asdict() for attempt in attempts]})
        return
    fields((name, text) for name, text in _portrait(task).items() if text)
    if attempts:
        click.echo()
        table(("attempt", "worker", "started", "took", "outcome", "error"), [_attempt_row(each) for each in attempts])


def _portrait(task: Task) -> dict[str, str]:
    return {
        "id": str(task.id),
        "queue": task.queue,
        "state": f"{task.state}, asked to end" if task.cancel_requested else str(task.state),
        "function": task.function or "",
        "payload": _shown(task, "payload"),
        "result": "" if readable(task, "result", "") is None else _shown(task, "result"),
        "attempt": _attempt_of(task),
        "priority": str(task.priority or ""),
        "key": task.key or "",
        "worker": str(task.worker or ""),
        "enqueued": local(task.created_at),
        "due": local(task.start_at),
        "started": local(task.started_at),
        "finished": local(task.finished_at),
        "error": task.error or "",
    }


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    known = attempt.started_at is not None and attempt.finished_at is not None
    took = f"{(attempt.finished_at - attempt.started_at).total_seconds():.1f} s" if known else ""  # type: ignore[operator]
    last = (attempt.error or "").strip().splitlines()[-1:]
    return (
        str(attempt.number),
        str(attempt.worker or ""),
        local(attempt.started_at),
        took,
        attempt.outcome or "running",
        "".join(last),
    )


@click.command()
@queue_option
@json_option
@click.pass_obj
def stats(url: str | None, queue: str, json: bool) -> None:
    """Count the tasks of a queue in each state."""
    with open_queue(url, queue) as lane:
        found = lane.stats()._asdict()
    if json:
        print_json(found)
        return
    waited = found["oldest_due"]
    found["oldest_due"] = "nothing is due" if waited is None else f"has waited {waited:.1f} s"
    found["paused"] = "yes" if found["paused"] else "no"
    fields([("queue", queue), *((name.replace("_", " "), str(value)) for name, value in found.items())])


@click.command()
@json_option
@click.pass_obj
def workers(url: str | None, json: bool) -> None:
    """Show the living workers, and the lost ones of the last day."""
    with open_queue(url) as lane:
        found = [describe(lane, worker) for worker in lane.store.workers()]
    if json:
        print_json(found)
    elif found:
        table(("id", "pid", "state", "since", "holds", "host"), [_worker_row(worker) for worker in found])
    else:
        note("no workers")


def describe(queue: TaskQueue, worker: WorkerRecord) -> dict[str, Any]:
    """A worker as the commands show it; of one that is elsewhere only its heartbeat tells, in time."""
    rescuer = queue._membership.rescuer
    lost = worker.lost_at is not None or rescuer.is_gone(worker) is True
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "state": "lost" if lost else "alive",
        "elsewhere": rescuer.is_elsewhere(worker),
        "holds": len(queue.store.held(worker.id)),
        "lease": worker.lease,
        "created_at": to_datetime(worker.created_at),
        "lost_at": to_datetime(worker.lost_at),
    }


def _worker_row(worker: dict[str, Any]) -> tuple[str, ...]:
    state = f"{worker['state']} (elsewhere)" if worker["elsewhere"] else worker["state"]
    since = local(worker["lost_at"] or worker["created_at"])
    return str(worker["id"]), str(worker["pid"]), state, since, counted(worker["holds"]), worker["host"]
