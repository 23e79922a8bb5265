"""dbtaskqueue watch on a pseudo-terminal and on a pipe, while a worker runs tasks."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli.running import WITHIN, Cli, Terminal, assert_wrong_usage
from engines import execute
from helpers import until

from dbtaskqueue import RetryPolicy, TaskQueue

TASKS = """
import os, time
from dbtaskqueue import current_task

def run(payload):
    if payload == "fail":
        raise ValueError("no \\x1b[31m luck")
    task = current_task()
    number = 0
    while not os.path.exists("go"):
        number += 1
        task.progress(min(number, 30), 60, f"page {number}")
        time.sleep(0.05)
    task.progress(60, 60, "the last page")
"""


@pytest.fixture
def go(cli: Cli) -> Callable[[], None]:
    """A file that lets the tasks finish."""
    Path(cli.directory, "tasks.py").write_text(TASKS)
    return Path(cli.directory, "go").touch


@pytest.fixture
def worker(cli: Cli, queue: TaskQueue, go: object) -> Iterator[subprocess.Popen[bytes]]:
    """Start a worker with processes that runs two tasks with progress, after a third task has failed."""
    queue.enqueue("fail", retry=RetryPolicy(delay=3600))
    queue.enqueue_many(["long", "longer"])
    with cli.started("worker", "tasks:run", "--executor", "process", "--concurrency", 2) as process:
        until(lambda: queue.stats().running == 2 and queue.stats().failed == 1, what="the tasks run")
        yield process


def seen(terminal: Terminal, pattern: str) -> str:
    """Wait for a line of the screen that matches the pattern; return it."""

    def found() -> list[str]:
        return [line for line in terminal.frame if re.search(pattern, line)]

    return until(found, what=f"{pattern!r} on the screen")[0]


# -- on a terminal ---------------------------------------------------------------------------------


def test_the_screen_is_live_until_q_is_pressed(
    cli: Cli, queue: TaskQueue, worker: subprocess.Popen[bytes], go: Callable[[], None]
) -> None:
    with cli.terminal("watch", "--interval", "0.2s") as terminal:
        seen(terminal, r"^dbtaskqueue sqlite:///.*\d\d:\d\d:\d\d  q quits$")
        seen(terminal, r"^default +0 +0 +2 +1 +0 +0")
        seen(terminal, rf"^\d+ +alive +process +2 +\d+s +{worker.pid} \S*")
        for number in (2, 3):
            seen(terminal, rf'^{number} +\d+s  ████░░░░  50% +\d+\w+ +\d+\.\d MiB +\d+%  page \d+ · "l')
        seen(terminal, r"^1 +failed +1/10 +\d+s +\d+m\d\ds  ValueError: no \\x1b\[31m luck$")
        assert not terminal.echoes
        assert len(terminal.frame) == 24
        assert max(map(len, terminal.frame)) <= 80
        queue.suspend(2)
        seen(terminal, r"^2 .*\(suspended\)")
        queue.continue_(2)
        go()
        seen(terminal, r"^default +0 +0 +0 +1 +2 +0")
        seen(terminal, r"^no running tasks$")
        terminal.press("q")
        assert terminal.leaves() == 0
        assert terminal.is_as_before
        assert terminal.echoes


def end_by_key(key: str) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.press(key)


def end_by_signal(number: signal.Signals) -> Callable[[Terminal], None]:
    return lambda terminal: terminal.process.send_signal(number)


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (end_by_key("Q"), 0),
        (end_by_key("\x03"), 0),
        (end_by_key("\x04"), 0),
        (end_by_signal(signal.SIGINT), 0),
        (end_by_signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (end_by_signal(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["Q", "Ctrl-C", "Ctrl-D", "SIGINT", "SIGTERM", "SIGHUP"],
)
def test_every_way_to_quit_restores_the_terminal(
    cli: Cli, queue: TaskQueue, end: Callable[[Terminal], None], code: int
) -> None:
    queue.enqueue(1)
    with cli.terminal("watch") as terminal:
        seen(terminal, "^default ")
        assert not terminal.is_as_before
        end(terminal)
        assert terminal.leaves() == code
        assert terminal.is_as_before
        assert "Traceback" not in terminal.shown
        assert "Aborted" not in terminal.shown


def test_an_error_of_the_database_is_shown_and_watch_continues(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    with cli.terminal("watch", "--interval", "0.2") as terminal:
        seen(terminal, "^default ")
        execute(cli.url, "ALTER TABLE dbtaskqueue_queue RENAME TO other")
        until(lambda: "no such table" in " ".join(terminal.frame), what="the error of the database")
        execute(cli.url, "ALTER TABLE other RENAME TO dbtaskqueue_queue")
        terminal.press("q")
        assert terminal.leaves() == 0
        assert terminal.is_as_before


SHELL = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
watch = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, watch.pid)
_, status = os.waitpid(watch.pid, os.WUNTRACED)
assert os.WIFSTOPPED(status), status
os.write(1, b"<stopped>")
os.kill(watch.pid, signal.SIGCONT)
sys.exit(watch.wait())
"""


def test_ctrl_z_and_fg(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    with cli.terminal("watch", command=[sys.executable, "-c", SHELL]) as terminal:
        seen(terminal, "^default ")
        terminal.press("\x1a")
        until(lambda: "<stopped>" in terminal.shown, what="it is stopped")
        before = terminal.shown.partition("<stopped>")[0]
        assert before.rstrip().endswith("\x1b[?1049l"), "the shell has its own screen"
        until(lambda: "\x1b[?1049h" in terminal.shown.partition("<stopped>")[2], what="it draws again")
        seen(terminal, "^default ")
        terminal.press("q")
        assert terminal.leaves() == 0
        assert terminal.is_as_before


@pytest.mark.parametrize(("columns", "rows"), [(132, 50), (60, 12)])
def test_it_follows_the_size_of_the_window(cli: Cli, queue: TaskQueue, columns: int, rows: int) -> None:
    for number in range(60):
        with TaskQueue(cli.url, f"queue-{number}") as other:
            other.enqueue(number)
    with cli.terminal("watch") as terminal:
        seen(terminal, "^… and .* more$")
        terminal.resize(columns, rows)
        until(lambda: len(terminal.frame) == rows, what="a screen of the new size")
        assert max(map(len, terminal.frame)) <= columns
        terminal.press("q")
        assert terminal.leaves() == 0


def test_an_unavailable_database_is_shown_until_it_is_available_again(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    file, moved = Path(cli.directory, "taskqueue.sqlite"), Path(cli.directory, "moved")
    with cli.terminal("watch", "--interval", "0.2") as terminal:
        seen(terminal, "^default +1 ")
        file.rename(moved)
        seen(terminal, r"^database unavailable for \d+ s, retrying:")
        assert seen(terminal, "^default +1 "), "the last snapshot stays"
        moved.rename(file)
        queue.enqueue(2)
        seen(terminal, "^default +2 ")
        assert not any("unavailable for" in line for line in terminal.frame)
        terminal.press("q")
        assert terminal.leaves() == 0


def test_one_queue(cli: Cli, queue: TaskQueue) -> None:
    for name in ("one", "two"):
        with TaskQueue(cli.url, name) as other:
            other.enqueue(1)
    with cli.terminal("watch", "--queue", "two") as terminal:
        seen(terminal, "^two +1 ")
        assert not any(line.startswith("one ") for line in terminal.frame)


def test_without_colours_and_in_ascii(cli: Cli, queue: TaskQueue, worker: object) -> None:
    with cli.terminal("watch", env={"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}) as terminal:
        seen(terminal, r"^2 +\d+s  \?{8}  50%")
        terminal.press("q")
        assert terminal.leaves() == 0
        assert not re.search(r"\x1b\[[\d;]*m", terminal.shown)


# -- on a pipe -------------------------------------------------------------------------------------


def until_line(process: subprocess.Popen[bytes], pattern: str) -> str:
    """Read the standard output up to a line that matches the pattern; return it."""
    assert process.stdout is not None
    read = ""
    while line := process.stdout.readline().decode():
        read += line
        if re.fullmatch(rf"\d\d:\d\d:\d\d {pattern}\n", line):
            return read
    raise AssertionError(f"no {pattern!r} in {read!r}")


def test_changes_are_printed_on_a_pipe(
    cli: Cli, queue: TaskQueue, worker: subprocess.Popen[bytes], go: Callable[[], None]
) -> None:
    with cli.started("watch", "--interval", "0.2") as watch:
        until_line(watch, r"queue default pending=0 reserved=0 running=2 failed=1 done=0 abandoned=0 cancelled=0")
        until_line(watch, rf"worker \d+ alive executor=process pid={worker.pid} \S+")
        until_line(watch, r'task 2 runs queue=default attempt=1/10 worker=\d+ "long"')
        until_line(watch, r"task 1 failed queue=default attempt=1/10 ValueError: no \\x1b\[31m luck")
        go()
        rest = until_line(watch, r"queue default .*running=0 failed=1 done=2 .*")
        watch.send_signal(signal.SIGINT)
        last, errors = watch.communicate(timeout=WITHIN)
        rest += last.decode()
    assert (watch.returncode, errors) == (0, b"")
    assert "\x1b" not in rest
    assert not re.search("worker .* alive", rest), "printed once"


def test_the_end_of_a_task_is_printed_on_a_pipe(
    cli: Cli, queue: TaskQueue, worker: object, go: Callable[[], None]
) -> None:
    with cli.started("watch", "--interval", "0.2") as watch:
        until_line(watch, r"task 1 failed .*")
        go()
        until_line(watch, r"task 2 is done queue=default attempt=1")


def test_with_json_each_snapshot_is_an_object_on_one_line(
    cli: Cli, queue: TaskQueue, worker: subprocess.Popen[bytes], go: Callable[[], None]
) -> None:
    with cli.started("watch", "--interval", "0.2", "--json") as watch:
        snapshots = map(json.loads, watch.stdout or ())
        snapshot = next(
            each for each in snapshots if all(task["progress"] and task["usage"] for task in each["running"])
        )
        assert snapshot.keys() == {"at", "queues", "workers", "running", "more", "failures", "ended", "schedules"}
        [shown_queue], [shown_worker], [failure] = (snapshot[name] for name in ("queues", "workers", "failures"))
        assert (shown_queue["name"], shown_queue["paused"], shown_queue["counts"]["running"]) == ("default", False, 2)
        assert (shown_worker["state"], shown_worker["executor"], shown_worker["pid"]) == (
            "alive",
            "process",
            worker.pid,
        )
        assert [(task["id"], task["progress"]["total"], task["attempt"]) for task in snapshot["running"]] == [
            (2, 60, 1),
            (3, 60, 1),
        ]
        assert (failure["id"], failure["error"]) == (1, "ValueError: no \x1b[31m luck")
        started_at = snapshot["running"][0]["started_at"]
        moments = snapshot["at"], shown_worker["created_at"], started_at, failure["at"], failure["due"]
        assert all(datetime.fromisoformat(moment).tzinfo == UTC for moment in moments)
        go()
        ended = next(each for later in snapshots for each in later["ended"] if each["id"] == 2)
    assert ended == {"id": 2, "queue": "default", "state": "done", "attempt": 1}


def test_an_unavailable_database_is_noted_on_stderr_on_a_pipe(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    file, moved = Path(cli.directory, "taskqueue.sqlite"), Path(cli.directory, "moved")
    with cli.started("watch", "--interval", "0.2") as watch:
        until_line(watch, "queue default pending=1 .*")
        file.rename(moved)
        assert watch.stderr is not None
        assert b"database unavailable" in watch.stderr.readline()
        moved.rename(file)
        assert watch.stderr.readline() == b"database available again\n"
        queue.enqueue(2)
        until_line(watch, "queue default pending=2 .*")


def test_a_dumb_terminal_gets_lines(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    with cli.terminal("watch", env={"TERM": "dumb"}) as terminal:
        until(lambda: "queue default pending=1" in terminal.shown, what="a line")
        assert "\x1b" not in terminal.shown
        terminal.press("\x03")
        assert terminal.leaves() == 0


def test_the_reader_of_the_pipe_may_exit(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    reader, writer = os.pipe()
    os.close(reader)
    watch = subprocess.Popen(cli.line("watch"), stdout=writer, stderr=subprocess.PIPE, env=cli.environment)
    os.close(writer)
    assert watch.communicate(timeout=WITHIN)[1] == b""


def test_what_cannot_be_watched(cli: Cli) -> None:
    assert_wrong_usage(cli("watch", "--interval", "0.01"), "must be at least 0.1 s")
    assert_wrong_usage(cli("watch", "--interval", "often"), "invalid duration")
    assert_wrong_usage(cli("watch", "--queue", "?"), "a queue's name must be")
