"""The commands that only read: list, show, stats, workers. None of them creates a database."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from .._formats.payload import JSON
from .._formats.progress import Progress, Usage, part_done, read_usage
from .._store.contract import WorkerRecord
from .._system.clock import to_datetime
from ..overview import FunctionStats
from ..queue import TaskQueue
from ..states import RESERVED, RUNNING, StateName, TaskState
from ..task import Attempt, Task, look_up
from .options import json_option, open_queue, queue_option, url_option
from .output import (
    attributes,
    compact,
    counted,
    fields,
    harmless,
    in_bytes,
    lasted,
    local,
    note,
    print_json,
    readable,
    table,
    took,
)
from .queues import refuse_unknown

_LAST_LINES = 10
"""Lines of an attempt's output that are shown."""


@click.command("list")
@queue_option
@click.option(
    "--state",
    type=click.Choice([str(state) for state in TaskState]),
    metavar="STATE",
    help="Only tasks in this state: " + ", ".join(map(str, TaskState)) + ".",
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, metavar="NUMBER", help="Show at most this many tasks."
)
@json_option
@url_option
@click.pass_obj
def list_tasks(url: str | None, queue: str, state: StateName | None, limit: int, json: bool) -> None:
    """List the tasks of a queue, newest first."""
    with open_queue(url, queue) as lane:
        refuse_unknown(lane.store, queue)
        tasks = lane.tasks(state=state, limit=limit)
    if json:
        print_json([attributes(task) for task in tasks])
    elif tasks:
        table(("id", "state", "attempt", "due", "payload"), [_row(task) for task in tasks])
    else:
        note(f"queue {queue} has no {state or ''} tasks".replace("  ", " "))


def _row(task: Task) -> tuple[str, ...]:
    state = f"{task.state} (suspended)" if task.suspended else str(task.state)
    return str(task.id), state, _attempt_of(task), local(task.start_at), what(task)


def _attempt_of(task: Task) -> str:
    return str(task.attempt) if task.max_attempts is None else f"{task.attempt}/{task.max_attempts}"


def what(task: Task) -> str:
    """What a task is to do, in one line: its function, its command line, its payload."""
    payload = _shown(task, "payload")
    if task.is_command:
        return _command_line(readable(task, "payload")) or payload
    return payload if task.function is None else f"{task.function} {payload}"


def _command_line(payload: JSON) -> str:
    """A command as one would type it; "" for a payload that is none."""
    argv = payload.get("argv") if isinstance(payload, dict) else None
    return shlex.join(map(str, argv)) if isinstance(argv, list) else ""


def _shown(task: Task, name: str) -> str:
    damaged = object()
    value = readable(task, name, damaged)
    return f"(the {name} cannot be read)" if value is damaged else compact(value)


@click.command()
@click.argument("id", type=int)
@json_option
@url_option
@click.pass_obj
def show(url: str | None, id: int, json: bool) -> None:
    """Show a task, its attempts, and the end of each output."""
    with open_queue(url) as lane:
        record = look_up(lane.store, id)
        task = Task(lane.store, record)
        attempts = task.attempts()
        worker = next((describe(lane, each) for each in lane.store.workers() if each.id == task.worker), None)
    usage = read_usage(record.usage)
    if json:
        more = {"usage": usage and usage._asdict(), "runs_on": worker if task.state in (RESERVED, RUNNING) else None}
        print_json({**attributes(task), **more, "attempts": [attempt._asdict() for attempt in attempts]})
        return
    portrait = _portrait(task) | {"worker": _worker_words(task, worker), "uses": _usage_words(usage)}
    fields((name, text) for name, text in portrait.items() if text)
    if attempts:
        click.echo()
        table(("attempt", "worker", "started", "took", "outcome", "error"), [_attempt_row(each) for each in attempts])
    for attempt in attempts:
        _show_usage(attempt)
        _show_output(attempt, task.error or "")


def _show_usage(attempt: Attempt) -> None:
    """Print what an attempt used, where its worker measured it."""
    known = {"of CPU": took(attempt.cpu_seconds), "of memory": in_bytes(attempt.peak_memory)}
    words = ", at most ".join(f"{value} {what}" for what, value in known.items() if value)
    if words:
        click.echo(f"\nattempt {attempt.number} used {words}")


def _show_output(attempt: Attempt, error: str) -> None:
    """Print the last lines of an attempt's output, unless the task's error shows them already, as after a crash."""
    lines = (attempt.output or "").splitlines()
    last = lines[-_LAST_LINES:]
    length = counted(len(lines), "line")
    if lines and "\n".join(last) in error:
        click.echo(f"\noutput of attempt {attempt.number}: {length}, which end as shown in the error")
    elif lines:
        click.echo(
            f"\noutput of attempt {attempt.number}, {f'last {_LAST_LINES} of ' if lines != last else ''}{length}:"
        )
        for line in last:
            click.echo(f"  {harmless(line, keep=chr(9)).expandtabs()}")


def _portrait(task: Task) -> dict[str, str]:
    return {
        "id": str(task.id),
        "queue": task.queue,
        "state": ", ".join(_state_words(task)),
        "function": task.function or "",
        "command": _command_line(readable(task, "payload")) if task.is_command else "",
        "payload": _shown(task, "payload"),
        "result": "" if readable(task, "result", "") is None else _shown(task, "result"),
        "attempt": _attempt_of(task),
        "priority": str(task.priority or ""),
        "limits": ", ".join(_limit_words(task)),
        "key": task.key or "",
        "worker": "",
        "progress": _progress_words(task.progress, runs=task.state == RUNNING),
        "uses": "",
        "enqueued": local(task.created_at),
        "due": local(task.start_at),
        "started": _started_words(task),
        "finished": local(task.finished_at),
        "error": task.error or "",
    }


def _state_words(task: Task) -> Iterator[str]:
    yield str(task.state)
    if task.suspended:
        yield "suspended"
    if task.cancel_requested:
        yield "cancellation requested"


def _worker_words(task: Task, worker: dict[str, Any] | None) -> str:
    """Which worker it is with, or ended with, and where that is."""
    if task.worker is None:
        return ""
    if worker is None:
        return f"{task.worker} (has left)"
    words = [_alive_words(worker), worker["executor"] or "fetch", f"pid {worker['pid']} on {worker['host']}"]
    return f"{task.worker} ({', '.join(words)})"


def _started_words(task: Task) -> str:
    if task.started_at is None or task.state != RUNNING:
        return local(task.started_at)
    seconds = (datetime.now(UTC) - task.started_at).total_seconds()
    return f"{local(task.started_at)} ({lasted(seconds)} ago)"


def _progress_words(progress: Progress | None, *, runs: bool) -> str:
    if progress is None:
        return ""
    part, eta = part_done(progress), lasted(progress.eta)
    words = [
        f"{progress.done}" if progress.total is None else f"{progress.done} of {progress.total}",
        "" if part is None else f"{int(part * 100)} %",
        f"{eta} left" if eta and runs else "",
        progress.message or "",
    ]
    return ", ".join(filter(None, words))


def _usage_words(usage: Usage | None) -> str:
    if usage is None:
        return ""
    processes = f"{usage.processes} process{'' if usage.processes == 1 else 'es'}"
    return f"{in_bytes(usage.memory)} of memory, {took(usage.cpu)} of CPU so far, {processes}"


def _limit_words(task: Task) -> Iterator[str]:
    if task.time_limit is not None:
        yield f"{task.time_limit:g} s"
    if task.stall_limit is not None:
        yield f"{task.stall_limit:g} s without progress"
    if task.memory_limit is not None:
        yield f"{in_bytes(task.memory_limit)} of memory"


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    known = attempt.started_at is not None and attempt.finished_at is not None
    length = f"{(attempt.finished_at - attempt.started_at).total_seconds():.1f} s" if known else ""  # type: ignore[operator]
    return (
        str(attempt.number),
        str(attempt.worker or ""),
        local(attempt.started_at),
        length,
        attempt.outcome or "running",
        in_one_line(attempt.error or ""),
    )


def in_one_line(error: str) -> str:
    """What an error says, without the module of its type: the end of a traceback; else the beginning, as of a limit."""
    lines = error.strip().splitlines() or [""]
    return re.sub(r"^(\w+\.)+(?=\w+: )", "", lines[-1] if "Traceback" in lines[0] else lines[0])


@click.command()
@queue_option
@click.option(
    "--functions", is_flag=True, help="Show attempts, failures, run times and memory of each task function instead."
)
@json_option
@url_option
@click.pass_obj
def stats(url: str | None, queue: str, functions: bool, json: bool) -> None:
    """Count the tasks of a queue by state."""
    if functions:
        _show_functions(url, queue, json)
        return
    with open_queue(url, queue) as lane:
        refuse_unknown(lane.store, queue)
        found = lane.stats()._asdict()
    if json:
        print_json(found)
        return
    waited = found["oldest_due"]
    found["oldest_due"] = "nothing is due" if waited is None else f"has waited {waited:.1f} s"
    found["paused"] = "yes" if found["paused"] else "no"
    fields([("queue", queue), *((name.replace("_", " "), str(value)) for name, value in found.items())])


def _show_functions(url: str | None, queue: str, json: bool) -> None:
    with open_queue(url, queue) as lane:
        refuse_unknown(lane.store, queue)
        found = lane.function_stats()
    if json:
        print_json([each._asdict() for each in found])
    elif found:
        # the name comes last: a long one is cut there
        names = ("attempts", "failures", "p50", "p95", "cpu p50", "memory", "function")
        table(names, [_function_row(each) for each in found])
    else:
        note(f"queue {queue} has no finished attempts")


def _function_row(each: FunctionStats) -> tuple[str, ...]:
    times = took(each.p50), took(each.p95), took(each.cpu_p50)
    return str(each.count), str(each.failures), *times, in_bytes(each.peak_memory), each.function


@click.command()
@json_option
@url_option
@click.pass_obj
def workers(url: str | None, json: bool) -> None:
    """List live workers, and those lost within the last day."""
    with open_queue(url) as lane:
        found = [describe(lane, worker) for worker in lane.store.workers()]
    if json:
        print_json(found)
    elif found:
        table(("id", "pid", "state", "since", "holds", "executor", "host"), [_worker_row(worker) for worker in found])
    else:
        note("no workers")


def describe(queue: TaskQueue, worker: WorkerRecord) -> dict[str, Any]:
    """Describe a worker. On another machine, it counts as alive until its heartbeat is older than its lease."""
    rescuer = queue._membership.rescuer
    lost = worker.lost_at is not None or rescuer.is_gone(worker) is True
    return {
        "id": worker.id,
        "host": worker.host,
        "pid": worker.pid,
        "state": "lost" if lost else "alive",
        "elsewhere": rescuer.is_elsewhere(worker),
        "holds": len(queue.store.held(worker.id)),
        "executor": worker.executor,
        "lease": worker.lease,
        "created_at": to_datetime(worker.created_at),
        "lost_at": to_datetime(worker.lost_at),
    }


def _alive_words(worker: dict[str, Any]) -> str:
    return f"{worker['state']} (elsewhere)" if worker["elsewhere"] else str(worker["state"])


def _worker_row(worker: dict[str, Any]) -> tuple[str, ...]:
    since = local(worker["lost_at"] or worker["created_at"])
    return (
        str(worker["id"]),
        str(worker["pid"]),
        _alive_words(worker),
        since,
        counted(worker["holds"]),
        worker["executor"] or "",
        worker["host"],
    )
