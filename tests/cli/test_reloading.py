"""dbtaskqueue worker --reload: a worker that is replaced when a file changes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.running import WITHIN, Cli, assert_wrong_usage
from helpers import until
from servers import requirements

from dbtaskqueue import TaskQueue
from dbtaskqueue.cli import reloading

requirements.library("watchfiles")

APP = """
import os, time
from dbtaskqueue import TaskQueue, current_task

queue = TaskQueue(open=False)

@queue.task(name="version")
def version():
    return {version}

@queue.task(name="stay")
def stay():
    open(f"started-{{current_task().attempt}}", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return {version}
"""


class Reloader:
    """A running ``worker --reload``, and the lines that it and its workers log."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def pids(self) -> list[int]:
        """The pids of the workers that have started, in order."""
        return [int(pid) for pid in re.findall(r"worker starts pid=(\d+)", self.log)]

    def await_workers(self, number: int) -> None:
        until(lambda: len(self.pids) == number, within=WITHIN, what=f"{number} starts in\n{self.log}")


@contextlib.contextmanager
def reloader(cli: Cli, *words: str) -> Iterator[Reloader]:
    log = Path(cli.directory, "log")
    with open(log, "w") as out:
        process = subprocess.Popen(
            cli.line("worker", "app:queue", "--reload", *words),
            stdin=subprocess.DEVNULL,
            stderr=out,
            env=cli.environment,
            cwd=cli.directory,
            process_group=0,
        )
    found = Reloader(process, log)
    try:
        yield found
    finally:
        process.kill()  # its worker ends with it
        process.wait()
        for pid in found.pids:
            until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), within=WITHIN)


def write(cli: Cli, version: object) -> None:
    Path(cli.directory, "app.py").write_text(APP.format(version=version))


def run(queue: TaskQueue) -> object:
    """Run a task, and return its result."""
    [task] = queue.submit([{"args": [], "kwargs": {}}], {}, "version")
    until(lambda: task.refresh().state == "done", within=WITHIN)
    return task.result


def test_an_edited_file_restarts_the_worker_and_a_syntax_error_is_waited_out(cli: Cli, queue: TaskQueue) -> None:
    write(cli, 1)
    with reloader(cli, "--executor", "thread") as found:
        assert run(queue) == 1
        write(cli, 2)
        found.await_workers(2)
        assert run(queue) == 2
        write(cli, "3 +")
        until(lambda: "starts again when a file changes code=1" in found.log, within=WITHIN)
        assert "SyntaxError" in found.log
        assert "Traceback" not in found.log
        write(cli, 3)
        found.await_workers(3)
        assert run(queue) == 3
        assert "files have changed, the worker restarts files=app.py" in found.log
        found.process.terminate()
        assert found.process.wait(WITHIN) == 0
        assert found.log.count("worker ends") == 3


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_a_running_task_goes_back_without_spending_an_attempt(cli: Cli, queue: TaskQueue, executor: str) -> None:
    write(cli, 1)
    [task] = queue.submit([{"args": [], "kwargs": {}}], {}, "stay")
    with reloader(cli, "--executor", executor) as found:
        until(Path(cli.directory, "started-1").exists, within=WITHIN)
        write(cli, 2)
        found.await_workers(2)
        until(lambda: len(task.attempts()) == 2, within=WITHIN)
        Path(cli.directory, "go").touch()
        until(lambda: task.refresh().state == "done", within=WITHIN)
    assert task.result == 2
    assert [attempt.outcome for attempt in task.attempts()] == ["released", "done"]
    assert task.refresh().attempt == 1


def test_a_burst_of_saves_is_one_restart(cli: Cli, queue: TaskQueue) -> None:
    write(cli, 0)
    with reloader(cli, "--executor", "thread") as found:
        found.await_workers(1)
        for version in range(1, 11):
            write(cli, version)
            time.sleep(0.05)  # as an editor or git does, faster than a worker starts
        found.await_workers(2)
        assert run(queue) == 10
        assert len(found.pids) == 2, found.log


def test_only_python_files_below_the_named_directories_count(cli: Cli, queue: TaskQueue) -> None:
    write(cli, 1)
    for name in ("watched", "other"):
        Path(cli.directory, name).mkdir()
    with reloader(cli, "--executor", "thread", "--reload-dir", "watched") as found:
        found.await_workers(1)
        write(cli, 2)
        Path(cli.directory, "watched", "notes.txt").touch()
        assert run(queue) == 1
        Path(cli.directory, "watched", "module.py").touch()
        found.await_workers(2)
        assert "files=watched/module.py" in found.log
        assert run(queue) == 2


def test_a_worker_that_ends_by_itself_ends_the_reloader(cli: Cli) -> None:
    write(cli, 1)
    assert cli("worker", "app:queue", "--reload", "--burst").code == 0
    assert_wrong_usage(cli("worker", "app", "--reload"), "not of the form MODULE:NAME")


def test_signals_reach_the_worker(cli: Cli, queue: TaskQueue) -> None:
    """The first one drains it, the second one stops it; after a kill of the parent, it drains as well."""
    write(cli, 1)
    [task] = queue.submit([{"args": [], "kwargs": {}}], {}, "stay")
    with reloader(cli, "--executor", "thread", "--drain-timeout", "1h") as found:
        until(Path(cli.directory, "started-1").exists, within=WITHIN)
        found.process.send_signal(signal.SIGINT)
        until(lambda: "stopping: 1 task may run for 3600 s more" in found.log, within=WITHIN)
        found.process.send_signal(signal.SIGINT)
        assert found.process.wait(WITHIN) == 0
    assert task.refresh().state == "pending"
    with reloader(cli, "--executor", "thread", "--drain-timeout", "0") as found:
        found.await_workers(1)
        os.kill(found.process.pid, signal.SIGKILL)
        until(lambda: "worker ends" in found.log, within=WITHIN)


def test_ctrl_c_in_a_terminal_reaches_the_worker_once(cli: Cli, queue: TaskQueue) -> None:
    write(cli, 1)
    [task] = queue.submit([{"args": [], "kwargs": {}}], {}, "stay")
    words = ("worker", "app:queue", "--reload", "--executor", "thread", "--drain-timeout", "1h")
    with cli.terminal(*words) as terminal:
        until(Path(cli.directory, "started-1").exists, within=WITHIN)
        terminal.press("\x03")
        until(lambda: "press Ctrl-C again" in terminal.shown, within=WITHIN)
        assert "stopping now" not in terminal.shown
        Path(cli.directory, "go").touch()
        assert terminal.leaves() == 0
    assert task.refresh().state == "done"


def test_what_is_refused(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write(cli, 1)
    run = cli("worker", "app:queue", "--reload", env={"NOTIFY_SOCKET": "/run/systemd/notify"})
    assert_wrong_usage(run, "--reload is for development")
    assert_wrong_usage(cli("worker", "app:queue", "--reload-dir", "."), "--reload-dir needs --reload")
    missing = cli("worker", "app:queue", "--reload", "--reload-dir", "missing")
    assert_wrong_usage(missing, "there is no directory 'missing'")
    blocked = "import sys; sys.modules['watchfiles'] = None; from dbtaskqueue.cli import main; main()"
    done = cli.run([sys.executable, "-c", blocked, "worker", "app:queue", "--reload"])
    assert (done.code, "pip install 'dbtaskqueue[reload]'" in done.err) == (1, True)


@pytest.mark.parametrize(("drains", "outcome"), [(310.0, "drained"), (30.0, "killed")])
def test_a_worker_gets_its_drain_timeout_before_it_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drains: float, outcome: str
) -> None:
    """Two minutes pass between a change and the end of the worker: it is killed a minute after it should have ended."""
    place = str(tmp_path)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", SLOW, place])
    clock = types.SimpleNamespace(monotonic=lambda: clock.now, now=0.0)
    monkeypatch.setattr(reloading, "time", clock)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def starts() -> int:
        return len(list(tmp_path.glob("started-*")))

    def changes() -> Iterator[set[str]]:
        until(lambda: starts() == 1, within=WITHIN)
        yield {"app.py"}
        until(Path(place, "draining").exists, within=WITHIN)
        yield set()
        clock.now += 120
        yield set()
        Path(place, "go").touch()
        ended = time.monotonic() + WITHIN
        while starts() < 2 and time.monotonic() < ended:
            time.sleep(0.01)
            yield set()

    try:
        reloading.reload(changes, drains)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert Path(place, "drained").exists() is (outcome == "drained")
    assert starts() == 2


SLOW = """
import os, signal, sys, time
os.chdir(sys.argv[1])
def drain(number, frame):
    open("draining", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    open("drained", "w").close()
    sys.exit()
signal.signal(signal.SIGTERM, drain)
open(f"started-{os.getpid()}", "w").close()
while not os.path.exists("go"):
    time.sleep(0.01)
"""
