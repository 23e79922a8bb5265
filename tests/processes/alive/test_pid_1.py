"""A worker that is PID 1, as in a container without an init: it need not reap the processes that tasks leave behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from helpers import until
from workers import Elsewhere, is_running, need_namespaces

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.engine("sqlite")

PROCESS_ONE = """
import sys
sys.path.insert(0, sys.argv[2])
from dbtaskqueue.cli import main
main(["--url", sys.argv[1], "worker", "child_tasks:act", "--concurrency", "2"])
"""


def test_no_zombies_accumulate_under_pid_1(start, url, tmp_path):
    need_namespaces()
    with TaskQueue(url) as queue:
        ways = ("child", "session", "daemon") * 4
        tasks = [
            queue.enqueue({"do": "leave", "file": f"{tmp_path}/{n}", "way": way}, max_attempts=1)
            for n, way in enumerate(ways)
        ]
        place = Elsewhere(start, PROCESS_ONE, url, Path(__file__).parents[2])
        until(lambda: all(task.refresh().state == "done" for task in tasks), within=60)
        until(lambda: len(place.pids()) <= 5 and all(map(is_running, place.pids())), what="no zombie, and nothing left")
        assert len(place.pids()) >= 3, "the worker, its heartbeat process and its fork server"
        task = queue.enqueue({"do": "until_told", "file": f"{tmp_path}/told"})
        until(lambda: (tmp_path / "told").exists())
        place.signal(signal.SIGTERM)  # to all processes, as some supervisors do
        assert place.process.wait(60) == 0
        assert (task.refresh().state, task.result, task.attempt) == ("done", "told", 1)
