"""The commands that list and count: list, stats, workers, queues. None of them creates a database."""

from __future__ import annotations

import click

from .._formats.display import byte_size, duration, short_duration
from ..checks import MOST
from ..monitoring.tasks import attempt_text, attributes, describe
from ..overview import FunctionStats, QueueInfo, WorkerInfo
from ..states import UNFINISHED, StateName, TaskState
from ..task import Blocked, Task, blocked_among
from .dependencies import blocked_words
from .options import json_option, open_queue, queue_option, url_option
from .output import WIDE, console, counted, fields, local, note, print_json, queue_name, table
from .queues import refuse_unknown


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
@click.option("--blocked", is_flag=True, help="Only unfinished tasks that wait for their parents.")
@json_option
@url_option
@click.pass_obj
def list_tasks(url: str | None, queue: str, state: StateName | None, limit: int, blocked: bool, json: bool) -> None:
    """List the tasks of a queue, newest first."""
    with open_queue(url, queue) as task_queue:
        store = task_queue.store
        refuse_unknown(store, queue)
        wanted = None if state is None else TaskState(state)
        records = store.tasks(queue, wanted, min(limit, MOST), None, blocked=blocked)
        tasks = [Task(store, record) for record in records]
        waiting = blocked_among(store, [task.id for task in tasks if task.state in UNFINISHED])
    if json:
        print_json([attributes(task, waiting.get(task.id)) for task in tasks])
    elif tasks:
        rows = [_task_row(task, waiting.get(task.id)) for task in tasks]
        table(("id", "state", "attempt", "due", "payload"), rows)
    else:
        kind = " ".join(filter(None, ("blocked" if blocked else "", state)))
        note(f"queue {queue} has no {kind} tasks".replace("  ", " "))


def _task_row(task: Task, blocked: Blocked | None) -> tuple[str, ...]:
    state = f"{task.state} (suspended)" if task.suspended else str(task.state)
    attempt = attempt_text(task.attempt, task.max_attempts)
    due = local(task.start_at) if blocked is None else blocked_words(blocked)
    return str(task.id), state, attempt, due, describe(task)


# -- queues ----------------------------------------------------------------------------------------


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
    with open_queue(url, queue) as task_queue:
        refuse_unknown(task_queue.store, queue)
        found = task_queue.stats()._asdict()
    if json:
        print_json(found)
        return
    waited = found["oldest_due"]
    found["oldest_due"] = "nothing is due" if waited is None else f"has waited {waited:.1f} s"
    found["paused"] = "yes" if found["paused"] else "no"
    fields([("queue", queue), *((name.replace("_", " "), str(value)) for name, value in found.items())])


def _show_functions(url: str | None, queue: str, json: bool) -> None:
    with open_queue(url, queue) as task_queue:
        refuse_unknown(task_queue.store, queue)
        found = task_queue.function_stats()
    if json:
        print_json([each._asdict() for each in found])
    elif found:
        # the name comes last, since a long one is cut there
        names = ("attempts", "failures", "p50", "p95", "cpu p50", "memory", "function")
        table(names, [_function_row(each) for each in found])
    else:
        note(f"queue {queue} has no finished attempts")


def _function_row(each: FunctionStats) -> tuple[str, ...]:
    times = duration(each.p50), duration(each.p95), duration(each.cpu_p50)
    return str(each.count), str(each.failures), *times, byte_size(each.peak_memory), each.function


_ALWAYS = ("pending", "running", "failed", "done", "abandoned")
_IF_WIDE = ("pending", "reserved", "running", "failed", "done", "cancelled", "abandoned")


@click.command("queues")
@json_option
@url_option
@click.pass_obj
def list_queues(url: str | None, json: bool) -> None:
    """List all queues: tasks by state, longest wait, live workers.

    Reserved and cancelled tasks are shown only on a wide terminal, and blocked tasks only if there are any. They are
    always part of --json. Blocked tasks wait for their parents. They are also counted as pending or failed.
    """
    with open_queue(url) as task_queue:
        found = task_queue.queues()
    if json:
        print_json([queue._asdict() for queue in found])
    elif found:
        states = _IF_WIDE if console().width >= WIDE else _ALWAYS
        if any(queue.blocked for queue in found):
            states = (states[0], "blocked", *states[1:])
        # the name comes last, since a long one is cut there
        names = (*states, "waits", "workers", "queue")
        table(names, [_queue_row(queue, states) for queue in found], numbers=True)
    else:
        note("no queues")


def _queue_row(queue: QueueInfo, states: tuple[str, ...]) -> tuple[str, ...]:
    counts = [str(getattr(queue, state)) for state in states]
    return *counts, short_duration(queue.oldest_due), str(queue.workers), queue_name(queue.name, paused=queue.paused)


# -- workers ---------------------------------------------------------------------------------------


@click.command("workers")
@json_option
@url_option
@click.pass_obj
def list_workers(url: str | None, json: bool) -> None:
    """List live workers, and those lost within the last day."""
    with open_queue(url) as task_queue:
        found = task_queue.workers()
    if json:
        print_json([worker._asdict() for worker in found])
    elif found:
        names = ("id", "pid", "state", "since", "holds", "executor", "host")
        table(names, [_worker_row(worker) for worker in found])
    else:
        note("no workers")


def worker_state(worker: WorkerInfo) -> str:
    """Return the state of a worker, with a mark if it runs elsewhere."""
    return f"{worker.state} (elsewhere)" if worker.elsewhere else worker.state


def _runs(worker: WorkerInfo) -> str:
    """Return how a worker runs tasks, and whether it runs command lines."""
    return ", ".join(filter(None, [worker.executor, "commands" if worker.commands else None]))


def _worker_row(worker: WorkerInfo) -> tuple[str, ...]:
    return (
        str(worker.id),
        str(worker.pid),
        worker_state(worker),
        local(worker.lost_at or worker.created_at),
        counted(worker.holds),
        _runs(worker),
        worker.host,
    )
