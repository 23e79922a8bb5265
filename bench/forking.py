"""Tasks in child processes: throughput, start time, memory, and cancellation."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator

from dbtaskqueue import Task, TaskQueue, TaskState

from . import databases, rival_processes
from .harness import Bench, Row, interleave, rate, ratios
from .processes import family, run_child, smaps, start_child

TASKS, HUEYS, RQS, STARTS, CANCELS = 20_000, 3_000, 300, 200, 10
_OVER_RQ, _OVER_HUEY, _OVER_THREADS = 3.0, 1.0, 0.25
_PATIENCE = 60.0
_GAP = 0.03, 0.08
_REST = 3.0
"""Seconds after which an idle child has closed its connections."""
_KIB = 2**10
_MILLI = 1e3


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for throughput, start, memory and cancellation."""
    yield from _throughput(bench)
    bench.say("a new child for each task")
    starts = [_starts(bench, bench.some(STARTS)) for _ in range(bench.repeats)]
    everything = sorted(sample for each in starts for sample in each)
    yield Row(
        "forking",
        "start of a task, stored with its claim → first line of its code in a new child, tasks_per_child=1: p50",
        [statistics.median(each) for each in starts],
        "ms",
        30,
        details=f"of {len(everything)} tasks; includes the claim's commit and the fork;"
        f" p99 {everything[len(everything) * 99 // 100]:.1f} ms, longest {everything[-1]:.1f} ms",
    )
    bench.say("memory of idle children")
    rest = [_at_rest(bench) for _ in range(bench.repeats)]
    yield Row(
        "forking",
        "private memory of an idle child (without the pages that it shares with the fork server)",
        [own for own, _ in rest],
        "MiB",
        12,
        details="mean of 2 children, after 500 no-op tasks and two that reported progress and stored a checkpoint;"
        f" proportional, with its part of shared pages: {statistics.median(pss for _, pss in rest):.1f} MiB",
    )
    bench.say("cancelling")
    ends = [_cancelled(bench, bench.some(CANCELS)) for _ in range(bench.repeats)]
    slowest = max(sample for each in ends for sample in each)
    yield Row(
        "forking",
        "cancel of a cooperative task → its process group has ended, and its outcome is stored",
        [statistics.median(each) for each in ends],
        "s",
        2.5,
        details=f"of {sum(map(len, ends))} tasks, each with a process of its own; longest {slowest:.2f} s",
    )


def _throughput(bench: Bench) -> Iterator[Row]:
    bench.say("throughput of a worker with 2 children")
    tasks = bench.some(TASKS)
    measures: dict[str, Callable[[], float]] = {
        "process": lambda: _ours(bench, "process", tasks),
        "thread": lambda: _ours(bench, "thread", tasks),
    }
    if bench.rivals.why_not:
        bench.say(bench.rivals.why_not)
    else:
        measures["huey"] = lambda: rival_processes.huey(bench, bench.some(HUEYS), "NORMAL")
        if rival_processes.redis_version() is None:
            bench.say("SKIPPED: RQ needs redis-server (Debian: redis-server), and there is none")
        else:
            measures["rq"] = lambda: rival_processes.rq(bench, bench.some(RQS))
    found = interleave(measures, bench.repeats)
    against = {
        "rq": (f"RQ's default worker twice, Redis {rival_processes.redis_version()} without persistence", _OVER_RQ),
        "huey": ("huey's consumer with 2 process workers, synchronous=NORMAL", _OVER_HUEY),
        "thread": ("the same worker with executor=thread", _OVER_THREADS),
    }
    for name, (whom, target) in against.items():
        if name in found:
            yield Row(
                "forking",
                f"executor=process, one worker of 2 children, synchronous=NORMAL, against {whom}",
                ratios(found["process"], found[name]),
                "×",
                target,
                at_least=True,
                details=f"{rate(found['process'])} against {rate(found[name])}",
            )


def _ours(bench: Bench, executor: str, tasks: int) -> float:
    notes = bench.directory / "notes"
    try:
        with databases.fresh(bench, databases.ours(bench, tasks)) as path:
            return float(run_child("executor_worker.py", databases.url(path, "NORMAL"), executor, tasks, notes))
    finally:
        notes.unlink(missing_ok=True)


def _starts(bench: Bench, samples: int) -> list[float]:
    """Return the milliseconds of each start; both times are from the machine's wall clock."""
    with databases.fresh(bench) as path, TaskQueue(databases.url(path)) as queue:
        with start_child("fresh_children.py", databases.url(path)):
            queue.enqueue().wait(_PATIENCE)  # until the fork server runs
            tasks = [_enqueued_after(queue, random.uniform(*_GAP)) for _ in range(samples)]
            for task in tasks:
                task.wait(_PATIENCE)
        return [(task.result - task.started_at.timestamp()) * _MILLI for task in tasks if task.started_at is not None]


def _enqueued_after(queue: TaskQueue, seconds: float) -> Task:
    time.sleep(seconds)
    return queue.enqueue()


def _at_rest(bench: Bench) -> tuple[float, float]:
    """Return the MiB of each child: its private pages, and its proportional share of all its memory."""
    with (
        databases.fresh(bench) as path,
        TaskQueue(databases.url(path)) as queue,
        start_child("long_tasks.py", databases.url(path), 2) as worker,
    ):
        tasks = [*queue.enqueue_many([{"do": "nothing"}] * 500), *queue.enqueue_many([{"do": "keep"}] * 2)]
        children = {task.get_result(_PATIENCE) for task in tasks} & set(family(worker.pid))
        assert len(children) == 2, children
        time.sleep(_REST)
        own = [smaps(pid, "Private_Clean") + smaps(pid, "Private_Dirty") for pid in children]
        return statistics.mean(own) / _KIB, statistics.mean(smaps(pid, "Pss") for pid in children) / _KIB


def _cancelled(bench: Bench, samples: int) -> list[float]:
    """Return the seconds of each task from the call of ``cancel`` on."""
    with (
        databases.fresh(bench) as path,
        TaskQueue(databases.url(path)) as queue,
        start_child("long_tasks.py", databases.url(path), 1),
    ):
        return [_end_of(queue.enqueue({"do": "wait"})) for _ in range(samples)]


def _end_of(task: Task) -> float:
    deadline = time.monotonic() + _PATIENCE
    while (progress := task.refresh().progress) is None and time.monotonic() < deadline:
        time.sleep(random.uniform(0.01, 0.05))  # at a random time between two polls of the worker
    assert progress is not None
    group = int(progress.done)
    started = time.monotonic()
    task.cancel()
    while _is_there(group):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert task.wait(_PATIENCE).state == TaskState.CANCELLED
    return time.monotonic() - started


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
