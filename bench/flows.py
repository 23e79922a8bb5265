"""Measurements of dependencies that are the same on every engine. They get a function that makes empty databases."""

from __future__ import annotations

import itertools
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dbtaskqueue import TaskQueue
from dbtaskqueue._store import queries

from . import databases, rival_processes
from .harness import Bench, Row, interleave, rate, ratios
from .processes import CHILDREN, next_line, run_child, start_child, started

PARENTS = 10_000
LINKS = 1_000
DESCENDANTS = 100_000
BLOCKED = 100_000
_CHUNK = 10_000
_CLAIMS = 500
_HUEYS, _HUEY_LINKS, _RQS = 2_000, 500, 100
_START_UP = 2.0
_MILLI = 1e3
_PATIENCE = 600.0

Fresh = Callable[[], AbstractContextManager[str]]
"""Yields the URL of an empty database."""


@contextmanager
def file(bench: Bench, synchronous: str = "FULL") -> Iterator[str]:
    """Yield the URL of a new SQLite file."""
    with databases.fresh(bench) as path:
        yield databases.url(path, synchronous)


def fan_in(bench: Bench, group: str, name: str, fresh: Fresh, *, workers: int, start: float) -> Iterator[Row]:
    """Yield two rows: what a child of many parents costs, and how late it starts (at most ``start`` ms)."""
    parents = bench.some(PARENTS)
    bench.say(f"{name}: {parents:,} parents of one child, and {parents:,} tasks without it")
    delays: list[float] = []

    def run(has_child: bool) -> float:
        with fresh() as url:
            with TaskQueue(url) as queue:
                tasks = queue.enqueue_many([None] * parents)
                if has_child:
                    queue.enqueue("child", after=tasks)
            seconds, delay = _together(url, workers, parents + has_child)
        if has_child:
            delays.append(delay * _MILLI)
        return seconds

    found = interleave({"with": lambda: run(True), "without": lambda: run(False)}, bench.repeats)
    rates = {kind: rate([parents / seconds for seconds in found[kind]]) for kind in found}
    yield Row(
        group,
        f"{name}: time of {parents:,} no-op parents and one child, against {parents:,} tasks without it",
        ratios(found["with"], found["without"]),
        "×",
        1.3,
        details=f"{rates['with']} against {rates['without']}",
    )
    yield Row(
        group,
        f"{name}: last return of a parent → start of the child",
        delays,
        "ms",
        start,
        details="includes storing the outcomes of the last batch",
    )


def _together(url: str, workers: int, tasks: int) -> tuple[float, float]:
    """Return the seconds from the first start to the last, and those from the last parent to the child."""
    start = time.monotonic() + _START_UP
    with ExitStack() as stack:
        processes = [stack.enter_context(start_child("fan_worker.py", url, start)) for _ in range(workers)]
        answers: list[dict[str, Any]] = [next_line(process) for process in processes]
    assert sum(answer["tasks"] for answer in answers) == tasks, answers
    last = max(answer["last"] for answer in answers if answer["last"])
    child = max((answer["child"] for answer in answers if answer["child"]), default=last)
    return max(last, child) - min(answer["started"] for answer in answers if answer["started"]), child - last


def chain(bench: Bench, group: str, name: str, fresh: Fresh, target: float) -> Row:
    """Return the median time from the start of a link to that of the next one, of tasks that wait for each other."""
    links = bench.some(LINKS)
    bench.say(f"{name}: a chain of {links:,}")
    rounds = [_chain(fresh, links) for _ in range(bench.repeats)]
    everything = sorted(sample for each in rounds for sample in each)
    return Row(
        group,
        f"{name}: chain of {links:,}, from the start of a link to the start of the next one: p50",
        [statistics.median(each) for each in rounds],
        "ms",
        target,
        details=f"one worker; p99 {everything[len(everything) * 99 // 100]:.1f} ms, longest {everything[-1]:.1f} ms",
    )


def _chain(fresh: Fresh, links: int) -> list[float]:
    with fresh() as url, TaskQueue(url) as queue:
        with queue.flow() as flow:
            task = flow.add(0)
            for number in range(1, links):
                task = flow.add(number, after=task)
        with start_child("starts.py", url):
            task.task.wait(_PATIENCE)
        starts = sorted(each.result["started"] for each in queue.tasks(state="done", limit=links))
    assert len(starts) == links
    return [(later - earlier) * _MILLI for earlier, later in itertools.pairwise(starts)]


def cancelling(bench: Bench, group: str, name: str, fresh: Fresh) -> Row:
    """Return the longest other write while the cancel of a root decides all its descendants."""
    descendants = bench.some(DESCENDANTS)
    bench.say(f"{name}: cancel of a root with {descendants:,} descendants")
    took: list[float] = []
    counts: list[int] = []

    def run() -> float:
        with fresh() as url, TaskQueue(url) as queue:
            root = queue.enqueue()
            for first in range(0, descendants, _CHUNK):
                queue.enqueue_many([None] * min(_CHUNK, descendants - first), after=root)
            command = sys.executable, CHILDREN / "other_writes.py", url
            with started(*command, stdin=subprocess.PIPE) as writer:
                next_line(writer)
                start = time.monotonic()
                root.cancel()
                took.append(time.monotonic() - start)
                assert writer.stdin is not None
                writer.stdin.write(b"\n")
                writer.stdin.flush()
                answer = next_line(writer)
            assert queue.stats().cancelled == descendants + 1
        counts.append(answer["count"])
        return float(answer["longest"]) * _MILLI

    values = [run() for _ in range(bench.repeats)]
    return Row(
        group,
        f"{name}: cancel of a root with {descendants:,} descendants: longest enqueue of another process meanwhile",
        values,
        "ms",
        100,
        details=f"it took {statistics.median(took):.1f} s, with {statistics.median(counts):,.0f} others meanwhile",
    )


def beside_blocked(bench: Bench, group: str, name: str, fresh: Fresh) -> Iterator[Row]:
    """Yield the time of a claim beside many blocked tasks, against none."""
    blocked = bench.some(BLOCKED)
    bench.say(f"{name}: claims beside {blocked:,} blocked tasks")
    with fresh() as full, fresh() as empty:
        with TaskQueue(full) as queue:
            root = queue.enqueue(start_in=1e6)
            for first in range(0, blocked, _CHUNK):
                queue.enqueue_many([None] * min(_CHUNK, blocked - first), after=root)
        with TaskQueue(empty) as queue:
            queue.enqueue(start_in=1e6)
        pairs = [_claims(bench, full, empty) for _ in range(bench.repeats)]
    found = {kind: [pair[which] for pair in pairs] for which, kind in enumerate(("full", "empty"))}
    yield Row(
        group,
        f"{name}: time of a claim beside {blocked:,} blocked tasks, against none",
        ratios(found["full"], found["empty"]),
        "×",
        1.3,
        details=f"{statistics.median(found['full']) * _MILLI:.2f} ms against"
        f" {statistics.median(found['empty']) * _MILLI:.2f} ms, of one task, with its commit",
    )


def _claims(bench: Bench, *urls: str) -> list[float]:
    """Return the median seconds of a ``fetch`` of one task from each database; they take turns."""
    claims = bench.some(_CLAIMS)
    took: list[list[float]] = [[] for _ in urls]
    with ExitStack() as stack:
        queues = [stack.enter_context(TaskQueue(url)) for url in urls]
        for queue in queues:
            queue.enqueue_many([None] * claims)
        for _ in range(claims):
            for queue, times in zip(queues, took, strict=True):
                start = time.perf_counter()
                [task] = queue.fetch(1, timeout=0)
                times.append(time.perf_counter() - start)
                if task.start():
                    task.finish()
    return [statistics.median(times) for times in took]


def steps_beside_blocked(bench: Bench, group: str) -> Row:
    """Return the steps of SQLite's virtual machine for the query of a claim, beside many blocked tasks, against none.

    They do not depend on the machine's load.
    """
    steps = {}
    blocked = bench.some(BLOCKED)
    for children in (blocked, 0):
        with file(bench, "NORMAL") as url, TaskQueue(url) as queue:
            root = queue.enqueue(start_in=1e6)
            for first in range(0, children, _CHUNK):
                queue.enqueue_many([None] * min(_CHUNK, children - first), after=root)
            queue.enqueue_many([None] * 100)
            queue.fetch(1, timeout=0)  # so that there is a live worker
            steps[children] = _steps_of_a_claim(url)
    return Row(
        group,
        f"SQLite: steps of the virtual machine for a claim beside {blocked:,} blocked tasks, against none",
        [steps[blocked] / steps[0]],
        "×",
        1.1,
        details=f"{steps[blocked]:,} against {steps[0]:,}, for a claim of 10 tasks",
    )


def _steps_of_a_claim(url: str) -> int:
    count = 0

    def step() -> int:
        nonlocal count
        count += 1
        return 0

    with closing(sqlite3.connect(urlsplit(url).path)) as connection:
        [(worker,)] = connection.execute("SELECT max(id) FROM dbtaskqueue_worker WHERE lost_at IS NULL")
        values = {"queue": "default", "worker": worker, "now": time.time_ns() // 1000, "limit": 10, "commands": 0}
        connection.set_progress_handler(step, 1)
        [(found,)] = connection.execute(queries.load("sqlite")["claimable"], values)
    assert len(json.loads(found)) == 10, found
    return count


def rivals(bench: Bench) -> Iterator[Row]:
    """Yield the fan-in and the chain of one worker against huey's, and the fan-in against RQ's."""
    if bench.rivals.why_not:
        bench.say(bench.rivals.why_not)
        return
    bench.say("fan-in and chain against huey")
    tasks = bench.some(_HUEYS)
    found = interleave(
        {"ours": lambda: _ours(bench, tasks), "huey": lambda: _huey(bench, "chord", tasks)}, bench.repeats
    )
    yield Row(
        "dependencies",
        f"SQLite, FULL, 1 worker: {tasks:,} no-op tasks and one after them, against a chord of huey",
        ratios(found["ours"], found["huey"]),
        "×",
        1.0,
        at_least=True,
        details=f"{rate(found['ours'])} against {rate(found['huey'])}",
    )
    links = bench.some(_HUEY_LINKS)
    found = interleave(
        {"ours": lambda: _our_chain(bench, links), "huey": lambda: _huey(bench, "pipeline", links)}, bench.repeats
    )
    yield Row(
        "dependencies",
        f"SQLite, FULL, 1 worker: a chain of {links:,}, against a pipeline of huey",
        ratios(found["ours"], found["huey"]),
        "×",
        1.0,
        at_least=True,
        details=f"{rate(found['ours'])} against {rate(found['huey'])}",
    )
    if rival_processes.redis_version() is None:
        bench.say("SKIPPED: RQ needs redis-server (Debian: redis-server), and there is none")
        return
    bench.say("fan-in against RQ")
    jobs = bench.some(_RQS)
    found = interleave(
        {"ours": lambda: _ours(bench, jobs), "rq": lambda: rival_processes.rq_fan_in(bench, jobs)}, bench.repeats
    )
    yield Row(
        "dependencies",
        f"SQLite, FULL, 1 worker: {jobs:,} no-op tasks and one after them, against depends_on of RQ, 1 worker,"
        f" Redis {rival_processes.redis_version()} without persistence",
        ratios(found["ours"], found["rq"]),
        "×",
        1.0,
        at_least=True,
        details=f"{rate(found['ours'])} against {rate(found['rq'])}",
    )


def _ours(bench: Bench, tasks: int) -> float:
    """Return the tasks per second from the start of the first one to that of the child."""
    with file(bench) as url:
        with TaskQueue(url) as queue:
            queue.enqueue("child", after=queue.enqueue_many([None] * tasks))
        return tasks / _together(url, 1, tasks + 1)[0]


def _our_chain(bench: Bench, links: int) -> float:
    return _MILLI / statistics.mean(_chain(lambda: file(bench), links))


def _huey(bench: Bench, kind: str, tasks: int) -> float:
    """Return the tasks per second from the start of the first one to that of the last one, with huey's consumer."""
    with databases.fresh(bench) as path:
        environment = databases.huey_environment(path, "FULL", tasks)
        run_child("huey_flow.py", kind, python=bench.rivals.python, environment=environment)
        consumer = Path(bench.rivals.python).with_name("huey_consumer")
        command = bench.rivals.python, consumer, "huey_flow.huey", "-q"
        with open(os.devnull, "w") as log, started(*command, env=environment, cwd=CHILDREN, stderr=log) as process:
            return float(next_line(process))
