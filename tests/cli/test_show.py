"""dbtaskqueue show: everything about one task."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli.running import Cli, widest

from dbtaskqueue import Task, TaskQueue
from dbtaskqueue._store.contract import End, Note, TaskRecord
from dbtaskqueue._system import clock

ATTRIBUTES = {name for name in vars(Task) if isinstance(vars(Task)[name], property)} - {"deduplicated"}


def test_show_prints_everything(cli: Cli, busy: TaskQueue) -> None:
    shown = cli("show", 2).out
    assert re.search(r"^state +failed$", shown, re.MULTILINE)
    assert "x" * 300 in shown, "nothing is cut"
    assert re.search(r"^error +ValueError: the other side does not answer$", shown, re.MULTILINE)
    assert re.search(r"^1 +\d+ +\S+ \S+ +\d\.\d s +failed +ValueError: the other sid…$", shown, re.MULTILINE)


def test_show_in_json(cli: Cli, busy: TaskQueue) -> None:
    task = cli("show", 2, "--json").json
    assert set(task) == ATTRIBUTES | {"attempts", "runs_on", "usage", "parents", "children"}
    assert (task["runs_on"], task["usage"]) == (None, None)
    assert [(one["number"], one["outcome"]) for one in task["attempts"]] == [(1, "failed")]


def test_show_prints_meta_if_there_is_any(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1, meta={"tenant": "acme"})
    queue.enqueue(2)
    assert re.search(r'^meta +{"tenant": "acme"}$', cli("show", 1).out, re.MULTILINE)
    assert "meta" not in cli("show", 2).out


def test_a_task_of_any_queue_is_shown(cli: Cli, queue: TaskQueue) -> None:
    with TaskQueue(cli.url, "other") as other:
        other.enqueue(1)
    assert cli("show", 1, "--json").json["queue"] == "other"


@pytest.mark.parametrize(
    "error",
    [
        "dbtaskqueue.errors.LimitExceeded: it took too long\n\nits threads at that moment:\n  File x, line 1, in f",
        "Traceback (most recent call last):\n  File x, line 1\nLimitExceeded: it took too long",
    ],
)
def test_show_prints_why_each_attempt_ended(cli: Cli, queue: TaskQueue, error: str) -> None:
    queue.enqueue(1)
    [task] = queue.fetch()
    task.start()
    task.fail(error)
    row = cli("show", 1).out.splitlines()[-1]
    assert re.search(r"failed +LimitExceeded: it", row)


def test_a_suspended_task_is_marked(cli: Cli, long: TaskRecord) -> None:
    listed = cli("list").out
    assert "running (suspended)" in listed
    assert "ffmpeg -i 'a film'" in listed
    assert widest(listed) <= 80
    assert cli("list", "--json").json[0]["suspended"] is True
    assert re.search(r"^state +running, suspended$", cli("show", long.id).out, re.MULTILINE)


def test_show_prints_limits_output_and_resource_use(cli: Cli, long: TaskRecord) -> None:
    for run in (cli("show", long.id), cli.on_terminal("show", long.id, env={"NO_COLOR": "1"})):
        assert re.search(r"^limits +90 s, 5 s without progress, 1\.5 GiB of memory$", run.out, re.MULTILINE)
        assert re.search(r"^command +ffmpeg -i 'a film'$", run.out, re.MULTILINE)
        assert "\nattempt 1 used 2.5 s of CPU, at most 1.0 GiB of memory\n" in run.out
        last = "".join(f"  line {number}\\x1b[31m\n" for number in range(20, 30))
        for number in (1, 2):
            assert f"\noutput of attempt {number}, last 10 of 31 lines:\n{last}" in run.out
        assert "line 19" not in run.out
        assert "\x1b" not in run.out
    first, second = cli("show", long.id, "--json").json["attempts"]
    assert (first["cpu_seconds"], first["peak_memory"]) == (2.5, 2**30)
    assert (second["cpu_seconds"], second["output"][:10]) == (None, "attempt\t2\n")


def test_show_prints_progress_resource_use_and_the_worker(cli: Cli, queue: TaskQueue, long: TaskRecord) -> None:
    told = {
        "progress": json.dumps([45, 60, "page 45 \x1b[31m", 90.4]),
        "usage": f'{{"memory": {2**29}, "cpu": 12.5, "processes": 3}}',
    }
    [worker] = queue.store.workers()
    queue.store.exchange(worker.id, notes=[Note(long.id, long.token, name, value) for name, value in told.items()])
    place = f"pid {worker.pid} on {worker.host}"
    for run in (cli("show", long.id), cli.on_terminal("show", long.id, env={"NO_COLOR": "1"})):
        assert re.search(rf"^worker +{worker.id} \(alive, process, {place}\)$", run.out, re.MULTILINE)
        assert re.search(r"^progress +45 of 60, 75 %, 1m30s left, page 45 \\x1b\[31m$", run.out, re.MULTILINE)
        assert re.search(r"^uses +512\.0 MiB of memory, 12\.5 s of CPU so far, 3 processes$", run.out, re.MULTILINE)
        assert re.search(r"^started +\S+ \S+ \(\d+s ago\)$", run.out, re.MULTILINE)
        assert widest(run.out) <= 80
    shown = cli("show", long.id, "--json").json
    progress = {"done": 45, "total": 60, "message": "page 45 \x1b[31m", "eta": 90.4}
    assert shown["progress"] == progress
    assert cli("list", "--json").json[0]["progress"] == progress
    assert shown["usage"] == {"memory": 2**29, "cpu": 12.5, "processes": 3}
    assert (shown["runs_on"]["pid"], shown["runs_on"]["state"]) == (worker.pid, "alive")
    queue.store.exchange(worker.id, ends=[End("finish", long.id, long.token, clock.now())])
    queue.store.deregister(worker.id)
    assert re.search(rf"^worker +{worker.id} \(has left\)$", cli("show", long.id).out, re.MULTILINE)
    assert cli("show", long.id, "--json").json["runs_on"] is None


def test_show_prints_the_stack_of_a_crash_once(cli: Cli, queue: TaskQueue) -> None:
    crash = "import ctypes\ndef run(payload):\n    print('started')\n    ctypes.string_at(0)\n"
    Path(cli.directory, "crash.py").write_text(crash)
    queue.enqueue(1, max_attempts=1)
    assert cli("worker", "crash:run", "--burst").code == 0
    shown = cli("show", 1).out
    assert "the child process was killed by SIGSEGV" in shown
    stack = [line.strip() for line in shown.splitlines() if line.strip().startswith("File ")]
    assert len(stack) == len(set(stack)) > 3
    assert re.search(r"^output of attempt 1: \d+ lines; its end is shown in the error$", shown, re.MULTILINE)
    assert cli("show", 1, "--json").json["attempts"][0]["output"].startswith("started\n")


def test_damaged_notes_are_not_shown(cli: Cli, queue: TaskQueue, long: TaskRecord) -> None:
    [worker] = queue.store.workers()
    notes = [Note(long.id, long.token, name, "[[{") for name in ("progress", "usage")]
    queue.store.exchange(worker.id, notes=notes)
    run = cli("show", long.id)
    assert (run.code, run.err) == (0, "")
    assert not re.search("^(progress|uses) ", run.out, re.MULTILINE)
    assert cli("show", long.id, "--json").json["usage"] is None
