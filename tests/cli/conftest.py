"""Fixtures that run the command in a directory and on a database of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.running import Cli

from dbtaskqueue import RetryPolicy, TaskQueue
from dbtaskqueue._store.contract import Claim, End, Note, TaskRecord
from dbtaskqueue._system import clock
from dbtaskqueue._worker.membership import Membership


@pytest.fixture
def cli(url: str, tmp_path: Path) -> Cli:
    """Run ``dbtaskqueue --url URL …`` on the database of the ``url`` and ``queue`` fixtures."""
    return Cli(url, tmp_path)


@pytest.fixture
def busy(queue: TaskQueue) -> TaskQueue:
    """A queue with long payloads and a task in each state that a test can reach without a crash."""
    queue.enqueue_many([{"url": "http://example.com/" + "x" * 300, "n": n} for n in range(20)])
    queue.enqueue("ü你好" * 100, priority=-1)
    done, failed, abandoned, released = queue.fetch(4)
    for task in (done, failed, abandoned):
        task.start()
    done.finish({"status": "OK"})
    failed.fail(ValueError("the other side does not answer"))
    abandoned.fail("hopeless " * 20, retry=False)
    released.release()
    queue.cancel(7)
    return queue


@pytest.fixture
def long(queue: TaskQueue) -> TaskRecord:
    """A suspended command line in its second attempt, run by a worker with processes."""
    queue.enqueue_command(
        ["ffmpeg", "-i", "a film"], time_limit=90, stall_limit=5, memory_limit=3 * 2**29, retry=RetryPolicy(delay=0)
    )
    member = Membership(queue.store, 30.0, queue.events, runs_tasks=False, executor="process")
    worker = member.join()
    output = "".join(f"line {number}\x1b[31m\r" for number in range(30))
    for number in (1, 2):
        claim = Claim(["default"], 1, clock.now(), start=True, commands=True)
        [record] = queue.store.exchange(worker, claim=claim).claimed
        notes = [Note(record.id, record.token, "output", f"attempt\t{number}\n{output}")]
        ends = [End("fail", record.id, record.token, clock.now(), error="x", cpu=2_500_000, memory=2**30)]
        queue.store.exchange(worker, notes=notes, ends=ends if number == 1 else [])
    queue.suspend(record.id)
    return record
