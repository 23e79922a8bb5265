"""Schedules on a SQLite file: what they cost an idle worker, how late ticks are, and many ticks at the same moment."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

from dbtaskqueue import TaskQueue

from . import databases
from .harness import Bench, Row
from .processes import cpu_seconds, family, start_child

_SCHEDULES = 1000
_SETTLING = 12.0
_SECONDS = 25.0
_TICKS = 60
_EVERY = 10.0
"""Seconds between the moments at which all schedules are due."""
_PERCENT = 100


def measure(bench: Bench) -> Iterator[Row]:
    """Yield all rows."""
    yield _idle(bench)
    yield from _lateness(bench)
    yield _together(bench)


@contextlib.contextmanager
def _queue_with_worker(bench: Bench) -> Iterator[tuple[TaskQueue, int]]:
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(databases.fresh(bench))
        worker = stack.enter_context(start_child("idle_worker.py", databases.url(path)))
        queue = stack.enter_context(TaskQueue(databases.url(path)))
        queue.enqueue({"number": 1}).wait(10)  # until it has started, with its heartbeat process
        yield queue, worker.pid


def _idle(bench: Bench) -> Row:
    number, seconds = bench.some(_SCHEDULES), _SECONDS / 5 if bench.quick else _SECONDS
    bench.say(f"an idle worker with {number:,} schedules, for {seconds:.0f} s")
    taken = []
    for _ in range(bench.repeats):
        with _queue_with_worker(bench) as (queue, pid):
            for n in range(number):
                queue.schedule(f"s{n}", {"number": n}, cron=f"{n % 60} 3 1 1 *")
            time.sleep(_SETTLING)
            members = family(pid)
            before = cpu_seconds(members)
            time.sleep(seconds)
            taken.append(_PERCENT * (cpu_seconds(members) - before) / seconds)
    return Row("schedules", f"idle worker with {number:,} schedules", taken, "% of a core", 0.5)


def _lateness(bench: Bench) -> Iterator[Row]:
    ticks = bench.some(_TICKS)
    bench.say(f"{ticks} ticks of a schedule of each second, with an idle worker")
    middles, worst = [], []
    for _ in range(bench.repeats):
        with _queue_with_worker(bench) as (queue, _):
            queue.schedule("s", {"number": 1}, every=1, overlap="allow")
            time.sleep(ticks + 12)  # another process finds a new schedule within ten seconds
            late = sorted(_late(queue, "s", ticks).values())
            middles.append(statistics.median(late))
            worst.append(late[-1 - len(late) // 100])
    yield Row("schedules", "from a tick to its stored task, idle, p50", middles, "ms", 50.0)
    yield Row("schedules", "the same, p99", worst, "ms", 500.0, details=f"of {ticks} ticks each")


def _late(queue: TaskQueue, name: str, latest: int) -> dict[int, float]:
    """Return for the latest ticks how many milliseconds later their tasks were stored, by the moment of the tick."""
    ticks = {tick.task: tick.at for tick in queue.store.ticks(queue.name, name, latest) if tick.task is not None}
    created = {id: queue.get(id).created_at.timestamp() for id in ticks}
    return {at: created[id] * 1000 - at / 1000 for id, at in ticks.items()}


def _together(bench: Bench) -> Row:
    number = bench.some(_SCHEDULES)
    bench.say(f"{number:,} schedules that are due at the same moment")
    took = []
    for _ in range(bench.repeats):
        with _queue_with_worker(bench) as (queue, _):
            for n in range(number):
                queue.schedule(f"s{n}", {"number": n}, every=_EVERY, overlap="allow")
            time.sleep(3 * _EVERY)
            last = max(tick.at for tick in queue.store.ticks(queue.name, "s0", 5))
            late = [_late(queue, f"s{n}", 5).get(last) for n in range(number)]
            assert None not in late, "a tick without a task"
            took.append(max(each for each in late if each is not None) / 1000)
    return Row("schedules", f"{number:,} ticks at the same moment, until all are stored", took, "s", 1.0)
