"""``executor="process"``: each task runs in a child process, which ends together with every process that it started."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import child_tasks
import pytest
from child_tasks import lines
from helpers import Background, child_processes, until

from dbtaskqueue import Attempt, ChildFailed, RetryPolicy, Task, TaskQueue, Worker, current_task
from dbtaskqueue._executors.process import children, fork_server, server_handle
from dbtaskqueue._executors.process.server_handle import ServerHandle
from dbtaskqueue._system.linux import Linux

# a connection pooler makes no difference to a child
pytestmark = [
    pytest.mark.engine("sqlite", "postgresql", "mariadb"),
    pytest.mark.one_engine("an executor never touches a database"),
]

ONCE = RetryPolicy(delay=0, max_attempts=1)
LATER = RetryPolicy(delay=3600)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "notes"


def enqueue(queue: TaskQueue, do: str, retry: RetryPolicy = ONCE, **arguments: Any) -> Task:
    return queue.enqueue({"do": do, **arguments}, retry=retry)


def work(queue: TaskQueue, **options: Any) -> None:
    Worker(queue, executor="process", **options).run(child_tasks.act, burst=True)


def done(queue: TaskQueue, do: str, **arguments: Any) -> Task:
    """Enqueue a task, let a worker run it, and return it."""
    task = enqueue(queue, do, **arguments)
    work(queue)
    return task.refresh()


@contextlib.contextmanager
def running_worker(queue: TaskQueue, **options: Any) -> Iterator[Worker]:
    """Run a worker during the block."""
    worker = Worker(queue, executor="process", **{"drain_timeout": 0, "cancel_grace": 2, **options})
    running = Background(lambda: worker.run(child_tasks.act))
    try:
        yield worker
    finally:
        worker.stop()
        running.join()


def exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def last(task: Task) -> Attempt:
    return task.attempts()[-1]


def pids(file: Path) -> list[int]:
    """Wait for the note of ``do_family`` and return its pids."""
    return [int(pid) for pid in until(lambda: lines(file), what="the family's pids")[0].split()]


# -- how a task can end ------------------------------------------------------------------------------


def test_a_task_runs_in_a_child_that_leads_its_group(queue: TaskQueue) -> None:
    task = done(queue, "where")
    where = task.result
    assert isinstance(where, dict)
    assert where["pid"] == where["group"] != os.getpid()
    assert where["parent"] == where["imported_by"] not in (os.getpid(), where["pid"])
    assert (where["threads"], where["main"]) == (1, True)
    assert not exists(where["pid"])  # the worker has ended, and so have all its processes
    assert not exists(where["parent"])


def test_task_functions_run_in_a_child_too(queue: TaskQueue, url: str) -> None:
    for function in (child_tasks.double, child_tasks.later):
        queue.functions.register(queue, function.__wrapped__, {"name": function.name})
    first = queue.submit([{"args": [20], "kwargs": {"plus": 2}}], {}, child_tasks.double.name)[0]
    second = queue.submit([{"args": ["soon"], "kwargs": {}}], {}, child_tasks.later.name)[0]
    Worker(queue, executor="process", concurrency=2).run(burst=True)
    assert (first.refresh().result, second.refresh().result) == (42, "soon")


@pytest.mark.parametrize(
    ("do", "arguments", "error"),
    [
        ("raise", {"text": "no good"}, "ValueError: no good"),
        ("exit", {"code": 4}, "SystemExit: 4"),
        ("hard_exit", {"code": 3}, "the child process ended with exit code 3"),
        ("die", {"number": int(signal.SIGKILL)}, "the child process was killed by SIGKILL"),
        ("segfault", {}, "the child process was killed by SIGSEGV"),
        ("memory_error", {}, "MemoryError"),
        ("nonsense", {}, "PayloadError: result: object is not JSON"),
        ("large", {"size": 2**20 + 1}, "PayloadError: result: "),
    ],
)
def test_the_error_says_how_a_child_ended_and_the_worker_continues(
    queue: TaskQueue, do: str, arguments: dict[str, Any], error: str
) -> None:
    reported: list[str] = []
    bad, good = enqueue(queue, do, **arguments), enqueue(queue, "return", value=1)
    work(queue, on_error=lambda task, error: reported.append(str(error).splitlines()[0]))
    assert (bad.refresh().state, good.refresh().state) == ("abandoned", "done")
    assert error in (bad.error or "")
    assert len(reported) == 1
    assert bad.attempt == 1


def test_the_last_output_of_a_dead_child_is_in_the_error(queue: TaskQueue) -> None:
    assert "last words" in (done(queue, "hard_exit", code=3).error or "")
    segfault = done(queue, "segfault").error or ""
    assert "child_tasks.py" in segfault  # faulthandler adds where it crashed
    assert "do_segfault" in segfault


def test_on_error_gets_the_exception_of_the_child(queue: TaskQueue) -> None:
    reported: list[BaseException] = []
    enqueue(queue, "raise", text="no good")
    work(queue, on_error=lambda task, error: reported.append(error))
    [error] = reported
    assert isinstance(error, ChildFailed)
    assert (error.name, str(error)) == ("ValueError", "ValueError: no good")
    assert "in do_raise" in error.text_in_child


@pytest.mark.parametrize(("name", "state"), [("retry", "failed"), ("abandon", "abandoned"), ("release", "pending")])
def test_a_task_chooses_its_outcome(queue: TaskQueue, name: str, state: str) -> None:
    task = enqueue(queue, "choose", LATER, name=name)
    Worker(queue, executor="process").run(child_tasks.act, max_tasks=1)
    assert task.refresh().state == state
    assert task.attempt == (0 if name == "release" else 1)


def test_a_forked_copy_of_a_child_sends_no_answer(queue: TaskQueue) -> None:
    task = done(queue, "fork_and_return")
    assert (task.state, task.result) == ("done", 0)


@pytest.mark.engine("sqlite")
def test_a_task_may_use_a_pool_of_processes(queue: TaskQueue) -> None:
    task = queue.enqueue({"do": "pool", "count": 3}, retry=ONCE, time_limit=20)
    work(queue, cancel_grace=0)
    assert (task.refresh().result, task.error) == ([3, 2, 1], None)


@pytest.mark.elsewhere("psutil", "none")
def test_short_tasks_share_a_child_and_long_ones_do_not(queue: TaskQueue) -> None:
    tasks = [enqueue(queue, "where") for _ in range(60)]
    work(queue, concurrency=2)
    found = {task.refresh().result["pid"] for task in tasks}  # type: ignore[index, call-overload]
    assert len(found) <= 2
    first, second = enqueue(queue, "sleep", seconds=1.1), enqueue(queue, "where")
    work(queue)
    assert (first.refresh().state, second.refresh().state) == ("done", "done")


def test_a_child_is_replaced_after_tasks_per_child(queue: TaskQueue) -> None:
    tasks = [enqueue(queue, "where") for _ in range(40)]
    work(queue, tasks_per_child=10)
    found = [task.refresh().result["pid"] for task in tasks]  # type: ignore[index, call-overload]
    assert max(found.count(pid) for pid in found) <= 10


def test_a_replaced_child_has_not_started_its_next_task(queue: TaskQueue, file: Path) -> None:
    tasks = [enqueue(queue, "note_slowly", file=str(file), number=number) for number in range(60)]
    work(queue, tasks_per_child=15)
    assert {str(task.refresh().state) for task in tasks} == {"done"}
    assert sorted(lines(file), key=int) == [str(number) for number in range(60)], "each task started once"


def test_a_child_that_is_stopped_between_two_tasks_has_not_started_the_next(
    queue: TaskQueue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "_PIN_AFTER", 0.003)  # about the duration of the tasks
    tasks = [enqueue(queue, "note_slowly", file=str(file), number=number) for number in range(600)]
    worker = Worker(queue, executor="process", drain_timeout=0, cancel_grace=1)
    running = Background(lambda: worker.run(child_tasks.act, burst=True, batch=20))
    try:
        until(lambda: queue.stats().done == len(tasks), within=60)
    finally:
        worker.stop()
        running.join()
    assert sorted(lines(file), key=int) == [str(number) for number in range(600)], "each task started once"


def test_a_child_with_a_leftover_thread_is_replaced(queue: TaskQueue) -> None:
    first, second = enqueue(queue, "leave_thread"), enqueue(queue, "where")
    work(queue)
    assert first.refresh().state == second.refresh().state == "done"
    assert second.result["pid"] != first.result  # type: ignore[index, call-overload]


# -- nothing outlives its attempt ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("child", marks=pytest.mark.elsewhere("psutil", "none")),
        pytest.param("session", marks=pytest.mark.elsewhere("psutil")),
        "daemon",
    ],
)
def test_processes_that_a_task_leaves_behind_are_killed_before_it_is_done(
    queue: TaskQueue, file: Path, way: str
) -> None:
    seen: list[bool] = []
    task = enqueue(queue, "leave", file=str(file), way=way)
    with running_worker(queue):
        until(lambda: task.refresh().state == "done")
        seen.append(exists(int(lines(file)[0])))
    assert seen == [False]


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.elsewhere("psutil")
def test_a_cancelled_task_ends_with_all_its_processes(queue: TaskQueue, file: Path, ignore: bool) -> None:
    task = enqueue(queue, "family", file=str(file), ignore=ignore)
    with running_worker(queue, cancel_grace=0.5 if ignore else 30):
        family = pids(file)
        assert all(map(exists, family))
        task.cancel()
        until(lambda: task.refresh().state == "cancelled")
        assert not any(map(exists, family))


def test_a_task_can_check_that_it_is_cancelled(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "until_told", file=str(file))
    with running_worker(queue):
        until(lambda: lines(file))
        task.cancel()
        until(lambda: task.refresh().state == "cancelled")
    assert lines(file)[1:] == ["cancelled"]


@pytest.mark.elsewhere("psutil")
def test_a_worker_that_lost_its_claim_stops_the_task(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "family", file=str(file))
    with running_worker(queue):
        family = pids(file)
        queue.purge()
        until(lambda: not any(map(exists, family)), what="the end of the task whose claim was lost")
    assert task.refresh().state == "abandoned"


@pytest.mark.elsewhere("psutil")
def test_children_end_with_a_killed_fork_server(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "family", LATER, file=str(file))
    with running_worker(queue):
        family = pids(file)
        server = int(Path(f"/proc/{family[0]}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        until(lambda: task.refresh().state == "failed")
        assert "fork server" in (task.error or "")
        assert "SIGKILL" in (task.error or "")
        assert not any(map(exists, family))
        after = enqueue(queue, "return", value=2)
        until(lambda: after.refresh().state == "done")  # a new fork server was started


@pytest.mark.elsewhere("psutil", "none")
def test_sigterm_from_another_process_does_not_end_a_task(queue: TaskQueue, file: Path) -> None:
    """A supervisor may send SIGTERM to every process of a service, but the worker decides when its tasks stop."""
    task = enqueue(queue, "until_told", file=str(file))
    with running_worker(queue, drain_timeout=30) as worker:
        child = int(until(lambda: lines(file))[0])
        os.kill(child, signal.SIGTERM)
        worker.stop()
        until(lambda: task.refresh().state == "done")
    assert (task.result, task.attempt) == ("told", 1)


@pytest.mark.elsewhere("psutil", "none")
def test_a_worker_leaves_no_processes(queue: TaskQueue) -> None:
    before = child_processes()
    [enqueue(queue, "return") for _ in range(3)]
    work(queue, concurrency=3)
    assert child_processes() <= before


# -- output and usage ------------------------------------------------------------------------------------


@pytest.mark.elsewhere("psutil", "none")
def test_output_of_all_descriptors_goes_to_the_attempt(queue: TaskQueue) -> None:
    first, second = enqueue(queue, "print", text="one"), enqueue(queue, "print", text="two")
    work(queue)
    for task, text in ((first, "one"), (second, "two")):
        output = last(task).output or ""
        assert sorted(output.splitlines()) == [text, f"{text} of a child of its own", f"{text} on stderr"]


def test_output_is_seen_while_the_task_runs(queue: TaskQueue, file: Path) -> None:
    task = queue.enqueue({"do": "count_and_print", "file": str(file)})
    with running_worker(queue):
        until(
            lambda: task.attempts() and "working on it" in (last(task).output or ""),
            what="output of a running task",
        )
        assert task.refresh().state == "running"


def test_long_output_keeps_its_start_and_end(queue: TaskQueue) -> None:
    task = done(queue, "flood", megabytes=64)
    output = last(task).output or ""
    assert task.state == "done"
    assert output.startswith("the beginning\nxxx")
    assert output.endswith("xxx\nthe end\n")
    assert len(output) <= 64 * 1024 + 100
    assert "bytes left out" in output


def test_a_task_may_close_its_output(queue: TaskQueue) -> None:
    assert done(queue, "close_output").state == "done"


def test_the_last_progress_is_stored(queue: TaskQueue) -> None:
    task = done(queue, "progress", count=1000)
    assert task.progress is not None
    assert task.progress[:3] == (1000, 1000, "step 1000")


def test_progress_is_seen_while_it_runs(queue: TaskQueue) -> None:
    task = enqueue(queue, "progress", count=10_000, pause=0.01)
    with running_worker(queue):
        seen = until(lambda: task.refresh().progress)
        assert task.state == "running"
        assert seen.total == 10_000


@pytest.mark.elsewhere("psutil")
def test_usage_is_stored(queue: TaskQueue) -> None:
    task = done(queue, "take_memory", megabytes=60)
    attempt = last(task)
    assert attempt.peak_memory is not None
    assert 60 * 2**20 <= attempt.peak_memory < 300 * 2**20
    assert attempt.cpu_seconds is not None
    small = done(queue, "return")
    assert (last(small).peak_memory or 0) < 60 * 2**20


# -- checkpoints and steps ----------------------------------------------------------------------------------


@pytest.mark.every_engine("the child has a connection of its own")
def test_steps_survive_a_kill(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "steps", RetryPolicy(delay=0), file=str(file), die_after="two stored")
    work(queue)
    assert (task.refresh().state, task.result, task.attempt) == ("done", ["ONE", "TWO", "THREE"], 2)
    assert lines(file) == ["one", "two", "three"]


@pytest.mark.engine("sqlite")  # a connection is an open file on this engine
def test_a_task_that_stores_nothing_for_long_has_no_connection(queue: TaskQueue, url: str, file: Path) -> None:
    task = enqueue(queue, "keep_now_and_then", file=str(file))
    with running_worker(queue, drain_timeout=30):
        child = int(until(lambda: lines(file))[0])
        until(lambda: not open_files(child, url.removeprefix("sqlite:///")), what="a task without a connection")
        assert task.refresh().state == "running"
    assert (task.refresh().state, task.result) == ("done", "then")


def open_files(pid: int, path: str) -> list[str]:
    """Return the open files of a process that belong to this database."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed in the meantime
            if (name := os.readlink(link)).startswith(path):
                found.append(name)
    return found


@pytest.mark.elsewhere("psutil", "none")
def test_a_drain_releases_the_task_with_its_checkpoint(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "resume", file=str(file), steps=20, seconds=0.1)
    with running_worker(queue):
        until(lambda: len(lines(file)) >= 3)
    assert task.refresh().state == "pending"
    work(queue)
    assert (task.refresh().state, task.attempt) == ("done", 1)
    numbers = [line.split()[1] for line in lines(file)]
    assert list(dict.fromkeys(numbers)) == [str(number) for number in range(20)]
    assert len(numbers) <= 21  # the step that the stop interrupted may run again


def test_a_task_that_checks_for_the_drain_finishes(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "until_told", file=str(file))
    with running_worker(queue, drain_timeout=30):
        until(lambda: lines(file))
    assert (task.refresh().state, task.result) == ("done", "told")


# -- suspended tasks, and limits -----------------------------------------------------------------------------


@pytest.mark.elsewhere("psutil", "none")
def test_suspend_and_continue(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "count_seconds", file=str(file), seconds=3)
    with running_worker(queue):
        until(lambda: lines(file))
        queue.suspend(task.id)
        pid = until(stopped_descendant, what="the suspended child")
        assert task.refresh().suspended
        assert task.state == "running"
        queue.continue_(task.id)
        until(lambda: not is_stopped(pid))
        until(lambda: task.refresh().state == "done")
    assert len(lines(file)) == task.result


@pytest.mark.elsewhere("psutil")
def test_a_suspended_task_can_be_cancelled(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "family", file=str(file))
    with running_worker(queue, cancel_grace=30):
        family = pids(file)
        queue.suspend(task.id)
        until(lambda: all(map(is_stopped, family)), what="the suspended family")
        task.cancel()
        until(lambda: task.refresh().state == "cancelled")
        assert not any(map(exists, family))


def test_a_suspended_task_does_not_block_other_writers(queue: TaskQueue, file: Path) -> None:
    task = enqueue(queue, "keep_all_the_time", file=str(file))
    with running_worker(queue):
        pid = int(until(lambda: lines(file))[0])
        for _ in range(2):
            queue.suspend(task.id)
            until(lambda: is_stopped(pid), what="the suspended child")
            Background(lambda: queue.enqueue_many([1] * 3, start_in=3600)).join(within=15)
            queue.continue_(task.id)
            until(lambda: not is_stopped(pid), what="a child that continues")
        queue.suspend(task.id)
        until(lambda: is_stopped(pid), what="the suspended child")
        task.cancel()
        until(lambda: task.refresh().state == "cancelled", within=15, what="the end of the task")


def stopped_descendant() -> int | None:
    """Return the pid of a suspended process of this test's worker. The machine may have others."""
    return next((proc.pid for proc in Linux().family(os.getpid()) if is_stopped(proc.pid)), None)


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("limits", "do", "arguments", "error"),
    [
        pytest.param(
            *({"time_limit": 1.0}, "sleep", {"seconds": 60}, "time_limit of 1 s"),
            marks=pytest.mark.elsewhere("psutil", "none"),
        ),
        ({"stall_limit": 1.0}, "sleep", {"seconds": 60}, "stall_limit of 1 s"),
        pytest.param(
            *({"memory_limit": 100 * 2**20}, "take_memory", {"megabytes": 200, "seconds": 15}),
            "memory_limit of 104857600",
            marks=pytest.mark.elsewhere("psutil"),
        ),
    ],
)
def test_a_task_that_exceeds_a_limit_fails(
    queue: TaskQueue, limits: dict[str, Any], do: str, arguments: dict[str, Any], error: str
) -> None:
    task = queue.enqueue({"do": do, **arguments}, retry=ONCE, **limits)
    work(queue, cancel_grace=30)
    assert task.refresh().state == "abandoned"
    assert "LimitExceeded" in (task.error or "")
    assert error in (task.error or "")
    if "memory_limit" not in limits:
        assert "in do_sleep" in (task.error or "")  # the stack when the limit was exceeded


@pytest.mark.elsewhere("psutil", "none")
def test_the_stack_of_a_task_that_holds_the_interpreter(queue: TaskQueue) -> None:
    task = queue.enqueue({"do": "hold_the_interpreter", "seconds": 60}, retry=ONCE, time_limit=2.0)
    work(queue, cancel_grace=0.5)
    assert "in do_hold_the_interpreter" in (task.refresh().error or "")


def test_progress_prevents_a_stall(queue: TaskQueue) -> None:
    task = queue.enqueue({"do": "progress", "count": 28, "pause": 0.1}, retry=ONCE, stall_limit=2)
    work(queue)
    assert task.refresh().state == "done"


# -- commands --------------------------------------------------------------------------------------------------


@pytest.mark.elsewhere("psutil", "none")
def test_a_command_runs_without_a_shell(queue: TaskQueue, tmp_path: Path) -> None:
    script = "import os, sys; print(os.getcwd(), sys.argv[1:], os.environ['COLOUR'], os.environ['DBTASKQUEUE_TASK_ID'])"
    task = queue.enqueue_command(["python3", "-c", script, "$HOME", "a b"], cwd=tmp_path, env={"COLOUR": "blue"})
    Worker(queue, executor="process", allow_commands=True).run(burst=True)
    assert (task.refresh().state, task.result) == ("done", {"exit_code": 0})
    assert last(task).output == f"{tmp_path} ['$HOME', 'a b'] blue {task.id}\n"


def test_a_command_gets_its_token(queue: TaskQueue) -> None:
    task = queue.enqueue_command(["sh", "-c", "echo $DBTASKQUEUE_TASK_ATTEMPT $DBTASKQUEUE_TASK_TOKEN"])
    Worker(queue, executor="process", allow_commands=True).run(burst=True)
    assert last(task.refresh()).output == f"1 {task.token}\n"


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["sh", "-c", "echo oh no; exit 3"], "the command ended with exit code 3"),
        (["sh", "-c", "kill -9 $$"], "the command was killed by SIGKILL"),
        (["/there/is/no/such/program"], "'/there/is/no/such/program' could not be started"),
    ],
)
def test_a_command_that_fails(queue: TaskQueue, argv: list[str], error: str) -> None:
    task = queue.enqueue_command(argv, retry=ONCE)
    Worker(queue, executor="process", allow_commands=True).run(burst=True)
    assert task.refresh().state == "abandoned"
    assert error in (task.error or "")
    assert ("oh no" in (task.error or "")) == ("echo" in argv[-1])


def test_a_commands_progress(queue: TaskQueue) -> None:
    task = queue.enqueue_command(["sh", "-c", "echo ::progress 3/10; echo ::progress 30/100 nearly there; echo end"])
    Worker(queue, executor="process", allow_commands=True).run(burst=True)
    assert task.refresh().progress is not None
    assert task.progress[:3] == (30, 100, "nearly there")  # type: ignore[index]


def test_a_worker_that_does_not_allow_commands_leaves_them_alone(queue: TaskQueue) -> None:
    command, other = queue.enqueue_command(["true"]), enqueue(queue, "return")
    work(queue)
    assert (command.refresh().state, other.refresh().state) == ("pending", "done")


def test_only_processes_run_commands(queue: TaskQueue) -> None:
    with pytest.raises(ValueError, match="process"):
        Worker(queue, allow_commands=True)


# -- where the code is ---------------------------------------------------------------------------------------------


def test_code_that_a_child_cannot_find_is_refused_before_the_run(queue: TaskQueue) -> None:
    def local(payload: object) -> None: ...

    task = queue.enqueue()
    for callback in (local, lambda payload: None):
        with pytest.raises(TypeError, match="at the top of a module"):
            Worker(queue, executor="process").run(callback, burst=True)
    assert task.refresh().state == "pending"
    assert queue.stats().workers == 0


def test_a_task_function_that_a_child_cannot_find_fails_its_task(queue: TaskQueue) -> None:
    @queue.task(name="hidden", max_attempts=1)
    def hidden() -> None: ...

    task = hidden.enqueue()
    work(queue)
    assert "cannot find the task function 'hidden'" in (task.refresh().error or "")


SCRIPT = """
import os, sys
from dbtaskqueue import TaskQueue, Worker, current_task
queue = TaskQueue(sys.argv[1])

def callback(payload):
    print("output")
    return [payload, os.getppid() != int(sys.argv[2]) if len(sys.argv) > 2 else None, current_task().attempt]

@queue.task
def function(number):
    return -number

if __name__ == "__main__":
    tasks = [queue.enqueue(1), function.enqueue(5)]
    Worker(queue, executor="process", concurrency=2).run(callback, burst=True)
    print([task.refresh().result for task in tasks])
"""


def test_a_script_with_a_guard(url: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script, url], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[[1, None, 1], -5]\n", "")


def test_a_script_without_a_guard_gets_an_error(url: str, tmp_path: Path) -> None:
    import subprocess
    import sys

    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    done = subprocess.run([sys.executable, script, url], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "__main__" in done.stderr


def test_the_module_is_imported_once_for_all_children(queue: TaskQueue) -> None:
    tasks = [enqueue(queue, "where") for _ in range(3)]
    work(queue, tasks_per_child=1)
    found = [task.refresh().result for task in tasks]
    assert len({where["pid"] for where in found}) == 3  # type: ignore[index, call-overload]
    assert len({where["imported_by"] for where in found}) == 1  # type: ignore[index, call-overload]


def test_current_task_raises_outside_tasks() -> None:
    with pytest.raises(RuntimeError):
        current_task()


def test_a_fork_server_that_can_no_longer_start_stops_the_worker(
    queue: TaskQueue, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = enqueue(queue, "until_told", LATER, file=str(file))
    worker = Worker(queue, executor="process")
    running = Background(lambda: worker.run(child_tasks.act))
    child = int(until(lambda: lines(file))[0])
    server = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    monkeypatch.setattr(fork_server, "command", lambda: ["false"])
    monkeypatch.setattr(server_handle, "_GIVE_UP", 0.5)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(Exception, match="fork server ended with exit code 1"):
        running.join()
    assert task.refresh().state == "failed"
    assert queue.stats().workers == 0


def test_a_fork_server_that_is_killed_now_and_then_does_not_stop_an_idle_worker(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker gives up after a time without a fork server, however often one was killed."""
    monkeypatch.setattr(server_handle, "_GIVE_UP", 0.0)
    servers: list[ServerHandle] = []
    start = ServerHandle.__init__

    def noted(server: ServerHandle, *arguments: Any) -> None:
        start(server, *arguments)
        servers.append(server)

    monkeypatch.setattr(ServerHandle, "__init__", noted)
    worker = Worker(queue, executor="process")
    running = Background(lambda: worker.run(child_tasks.act))
    for count in (1, 2, 3, 4):
        until(lambda count=count: len(servers) == count and servers[-1].is_ready, what="a fork server")
        if count < 4:
            servers[-1]._process.kill()
    task = enqueue(queue, "return", value=1)
    until(lambda: task.refresh().state == "done", what="the end of the task")
    worker.stop()
    running.join()


def test_the_output_of_many_short_tasks_is_kept_apart(queue: TaskQueue) -> None:
    tasks = [enqueue(queue, "write", number=number) for number in range(300)]
    work(queue, concurrency=2)
    for number, task in enumerate(tasks):
        assert (last(task).output or "").split() == ([str(number)] * (number % 3))


def test_the_output_of_a_short_task_that_fills_its_pipe_is_read(queue: TaskQueue) -> None:
    [enqueue(queue, "return") for _ in range(60)]
    flood = enqueue(queue, "flood", megabytes=1)
    [enqueue(queue, "return") for _ in range(60)]
    work(queue)
    assert (last(flood).output or "").endswith("the end\n")
    assert queue.stats().done == 121


def test_an_invalid_command_line_fails_its_task(queue: TaskQueue) -> None:
    task, after = queue.submit([{"argv": "ls"}], {"retry": ONCE}, command=True)[0], queue.enqueue_command(["true"])
    Worker(queue, executor="process", allow_commands=True).run(burst=True)
    assert "not a command line" in (task.refresh().error or "")
    assert after.refresh().state == "done"


def test_a_drain_releases_tasks_that_a_child_has_and_has_not_started(queue: TaskQueue, file: Path) -> None:
    quick = [enqueue(queue, "return") for _ in range(100)]
    slow = enqueue(queue, "until_told", file=str(file))
    after = [enqueue(queue, "note_and_wait", LATER, file=str(file)) for _ in range(100)]
    worker = Worker(queue, executor="process", drain_timeout=30)
    running = Background(lambda: worker.run(child_tasks.act))
    until(lambda: lines(file))
    worker.stop()
    running.join()
    assert all(task.refresh().state == "done" for task in quick)
    assert slow.refresh().state == "done"
    assert {task.refresh().state for task in after} == {"pending"}
    assert {task.attempt for task in after} == {0}
