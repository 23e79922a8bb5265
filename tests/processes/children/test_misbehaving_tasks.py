"""Tasks in children that do what no task should: each fails or ends alone, and the worker continues."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import child_tasks
import pytest
from child_tasks import lines
from helpers import Background, until
from processes.children.supervised import Supervisor
from workers import is_running

from dbtaskqueue import RetryPolicy, Task, TaskQueue, Worker

pytestmark = pytest.mark.one_engine("the behaviour of children depends on processes, not on SQL")

ONCE = RetryPolicy(delay=0, max_attempts=1)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def enqueue(queue: TaskQueue, do: str, **arguments: Any) -> Task:
    return queue.enqueue({"do": do, **arguments}, retry=ONCE)


def work(queue: TaskQueue) -> None:
    Worker(queue, executor="process").run(child_tasks.act, burst=True)


@contextlib.contextmanager
def working(queue: TaskQueue, **options: Any) -> Iterator[None]:
    worker = Worker(queue, executor="process", drain_timeout=0, **options)
    running = Background(lambda: worker.run(child_tasks.act))
    try:
        yield
    finally:
        worker.stop()
        running.join()


def noted_pids(file: Path, count: int) -> list[int]:
    until(lambda: len(lines(file)) >= count, what="pids")
    return [int(line) for line in lines(file)]


@pytest.mark.parametrize("first", [0, 3])
def test_a_child_that_closes_all_file_descriptors(queue: TaskQueue, first: int) -> None:
    bad, good = enqueue(queue, "close_all", first=first), enqueue(queue, "return", value=1)
    work(queue)
    assert (bad.refresh().state, good.refresh().state) == ("abandoned", "done")
    assert "the child" in (bad.error or "")


@pytest.mark.parametrize("kind", child_tasks.GARBAGE)
def test_garbage_in_the_childs_socket(queue: TaskQueue, kind: str) -> None:
    bad, good = enqueue(queue, "garbage", kind=kind), enqueue(queue, "return", value=1)
    work(queue)
    assert (bad.refresh().state, good.refresh().state) == ("abandoned", "done")
    assert "the child sent an invalid message" in (bad.error or "")


def test_a_child_that_continues_as_a_fork_of_itself(queue: TaskQueue, file: Path) -> None:
    task, after = enqueue(queue, "fork_away", file=str(file)), enqueue(queue, "return", value=1)
    work(queue)
    assert (task.refresh().state, after.refresh().state) == ("abandoned", "done")
    assert "exit code 0" in (task.error or "")
    assert not any(map(is_running, [int(pid) for pid in lines(file)]))


@pytest.mark.parametrize("end", ["cancel", "time_limit", "purge"])
def test_daemons_that_ignore_sigterm_end_with_their_task(queue: TaskQueue, file: Path, end: str) -> None:
    limit: dict[str, Any] = {"time_limit": 2} if end == "time_limit" else {}
    task = queue.enqueue({"do": "scatter", "file": str(file)}, retry=ONCE, **limit)
    with working(queue, cancel_grace=0.5):
        family = noted_pids(file, 3)
        if end == "cancel":
            task.cancel()
        elif end == "purge":
            queue.purge()
        state = "cancelled" if end == "cancel" else "abandoned"
        until(lambda: task.refresh().state == state)
        until(lambda: not any(map(is_running, family)), what="the end of the family")


def peak_memory(pid: int) -> int:
    """The peak memory of a process, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


@pytest.mark.engine("sqlite")  # only the worker's memory matters here, and the output takes long
def test_a_gigabyte_of_output_costs_the_worker_no_memory(queue: TaskQueue, url: str, tmp_path: Path) -> None:
    supervisor = Supervisor(url, tmp_path, 1)
    try:
        enqueue(queue, "flood", megabytes=1).wait(60)
        worker = supervisor.workers[0].pid
        before = peak_memory(worker)
        flood = enqueue(queue, "flood", megabytes=1024).wait(120)
        assert flood.state == "done"
        assert peak_memory(worker) - before < 50 * 1024
        assert supervisor.stop() == ""
    finally:
        supervisor.kill()
    output = flood.attempts()[-1].output or ""
    assert output.startswith("the beginning\n")
    assert output.endswith("\nthe end\n")


# -- the OOM killer -----------------------------------------------------------------------------------

MEMORY = 64 * 2**20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A control group below that of this process, with little memory."""
    with contextlib.ExitStack() as stack:
        yield _make_group(stack)


def _make_group(stack: contextlib.ExitStack) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, own = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup", controllers)
        group = Path(f"{root}{own}", f"dbtaskqueue-test-{os.getpid()}")
        limits = {"memory.max": MEMORY, "memory.swap.max": 0} if not controllers else {"memory.limit_in_bytes": MEMORY}
        try:
            group.mkdir()
            stack.callback(lambda group=group: until(lambda: _removed(group), what="the end of the control group"))
            for name, value in limits.items():
                if (group / name).exists() or name != "memory.swap.max":
                    (group / name).write_text(str(value))
            return group
        except OSError:
            continue
    pytest.skip("NO CONTROL GROUP FOR MEMORY CAN BE MADE HERE: what the kernel's OOM killer does is not tested")


def _removed(group: Path) -> bool:
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def test_the_oom_killer_ends_an_attempt_and_not_the_worker(queue: TaskQueue, small: Path) -> None:
    bad, good = enqueue(queue, "oom", directory=str(small)), enqueue(queue, "return", value=1)
    work(queue)
    assert (bad.refresh().state, good.refresh().state) == ("abandoned", "done")
    assert "the child process was killed by SIGKILL" in (bad.error or "")
