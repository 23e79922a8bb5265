"""The command show: everything about one task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import click

from .._formats.display import byte_size, duration, short_duration
from .._formats.progress import Progress, Usage, part_done, read_usage
from .._store.contract import Summary
from .._system import clock
from ..monitoring.tasks import attempt_text, command_text, details, error_line, readable, value_text
from ..overview import WorkerInfo, find_worker
from ..reasons import parent_words
from ..states import FINAL, RUNNING
from ..task import Attempt, Task, look_up
from .completion import task_ids
from .dependencies import blocked_words
from .listing import worker_state
from .options import json_option, open_queue, url_option
from .output import counted, escaped, fields, local, print_json, table

_LAST_LINES = 10
"""The number of lines of an attempt's output that are shown."""
_MOST_RELATIVES = 10
"""The number of parents, and of children, that are shown."""


@click.command()
@click.argument("id", type=int, shell_complete=task_ids)
@json_option
@url_option
@click.pass_obj
def show(url: str | None, id: int, json: bool) -> None:
    """Show a task, its attempts, and the end of each output."""
    with open_queue(url) as task_queue:
        store = task_queue.store
        record = look_up(store, id)
        if json:
            print_json(details(store, record))
            return
        task = Task(store, record)
        attempts = task.attempts()
        worker = None if task.worker is None else find_worker(store, task.worker)
        blocked = task.blocked
        family = {"parents": task.parents(), "children": task.children()}
        relatives = store.summaries([id for ids in family.values() for id in ids[:_MOST_RELATIVES]])
    usage = read_usage(record.usage)
    described = _described(task) | {"worker": _worker_words(task, worker), "uses": _usage_words(usage)}
    described["blocked"] = "" if blocked is None else blocked_words(blocked)
    described |= {name: _relatives_words(ids, relatives) for name, ids in family.items()}
    fields((name, text) for name, text in described.items() if text)
    if attempts:
        click.echo()
        table(("attempt", "worker", "started", "took", "outcome", "error"), [_attempt_row(each) for each in attempts])
    for attempt in attempts:
        _show_usage(attempt)
        _show_output(attempt, task.error or "")


def _show_usage(attempt: Attempt) -> None:
    """Print what an attempt used, if its worker measured it."""
    known = {"of CPU": duration(attempt.cpu_seconds), "of memory": byte_size(attempt.peak_memory)}
    words = ", at most ".join(f"{value} {what}" for what, value in known.items() if value)
    if words:
        click.echo(f"\nattempt {attempt.number} used {words}")


def _show_output(attempt: Attempt, error: str) -> None:
    """Print the last lines of an attempt's output, unless the task's error shows them already, as after a crash."""
    lines = (attempt.output or "").splitlines()
    last = lines[-_LAST_LINES:]
    length = counted(len(lines), "line")
    if lines and "\n".join(last) in error:
        click.echo(f"\noutput of attempt {attempt.number}: {length}; its end is shown in the error")
    elif lines:
        click.echo(
            f"\noutput of attempt {attempt.number}, {f'last {_LAST_LINES} of ' if lines != last else ''}{length}:"
        )
        for line in last:
            click.echo(f"  {escaped(line, keep=chr(9)).expandtabs()}")


def _described(task: Task) -> dict[str, str]:
    return {
        "id": str(task.id),
        "queue": task.queue,
        "state": ", ".join(_state_words(task)),
        "function": task.function or "",
        "command": command_text(task) if task.is_command else "",
        "payload": value_text(task, "payload"),
        "result": "" if readable(task, "result", "") is None else value_text(task, "result"),
        "attempt": attempt_text(task.attempt, task.max_attempts),
        "priority": str(task.priority or ""),
        "limits": ", ".join(_limit_words(task)),
        "key": task.key or "",
        "meta": "" if not readable(task, "meta", True) else value_text(task, "meta"),
        "blocked": "",
        "parents": "",
        "children": "",
        "worker": "",
        "progress": _progress_words(task.progress, runs=task.state == RUNNING),
        "uses": "",
        "enqueued": local(task.created_at),
        "due": local(task.start_at),
        "expires": local(task.expires_at),
        "started": _started_words(task),
        "finished": local(task.finished_at),
        "error": task.error or "",
    }


def _state_words(task: Task) -> Iterator[str]:
    yield str(task.state)
    if task.suspended:
        yield "suspended"
    if task.cancel_requested and task.state not in FINAL:
        yield "cancellation requested"


def _relatives_words(ids: Sequence[int], known: Mapping[int, Summary]) -> str:
    """Return the first parents or children with their states."""
    now = clock.now()
    words = [parent_words(id, known.get(id), now) for id in ids[:_MOST_RELATIVES]]
    more = len(ids) - len(words)
    return "; ".join([*words, f"and {more:,} more"] if more else words)


def _worker_words(task: Task, worker: WorkerInfo | None) -> str:
    """Return the worker that holds the task or ended it last, and where it runs."""
    if task.worker is None:
        return ""
    if worker is None:
        return f"{task.worker} (has left)"
    words = [worker_state(worker), worker.executor or "fetch", f"pid {worker.pid} on {worker.host}"]
    return f"{task.worker} ({', '.join(words)})"


def _started_words(task: Task) -> str:
    if task.started_at is None or task.state != RUNNING:
        return local(task.started_at)
    seconds = (datetime.now(UTC) - task.started_at).total_seconds()
    return f"{local(task.started_at)} ({short_duration(seconds)} ago)"


def _progress_words(progress: Progress | None, *, runs: bool) -> str:
    if progress is None:
        return ""
    part, eta = part_done(progress), short_duration(progress.eta)
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
    return f"{byte_size(usage.memory)} of memory, {duration(usage.cpu)} of CPU so far, {processes}"


def _limit_words(task: Task) -> Iterator[str]:
    if task.time_limit is not None:
        yield f"{task.time_limit:g} s"
    if task.stall_limit is not None:
        yield f"{task.stall_limit:g} s without progress"
    if task.memory_limit is not None:
        yield f"{byte_size(task.memory_limit)} of memory"


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    known = attempt.started_at is not None and attempt.finished_at is not None
    length = f"{(attempt.finished_at - attempt.started_at).total_seconds():.1f} s" if known else ""  # type: ignore[operator]
    return (
        str(attempt.number),
        str(attempt.worker or ""),
        local(attempt.started_at),
        length,
        attempt.outcome or "running",
        error_line(attempt.error or ""),
    )
