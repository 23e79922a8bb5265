"""A worker as a systemd service: its notifications, sent to a socket of the test."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ended, python_path, until
from notify_socket import Systemd
from workers import has_written, watch

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.engine("sqlite")

SHORT = "200000"


@pytest.fixture(params=["/", "@"])
def systemd(request: pytest.FixtureRequest) -> Iterator[Systemd]:
    with tempfile.TemporaryDirectory() as directory:
        found = Systemd(f"{directory}/notify" if request.param == "/" else f"@{directory}/notify")
        yield found
        found.close()


only_abstract = pytest.mark.parametrize("systemd", ["@"], indirect=True)


def service(systemd: Systemd | str, words: list[str], log: Path, **variables: str) -> subprocess.Popen[str]:
    """Start a process in the environment that systemd would give it. It logs to the file ``log``."""
    name = systemd if isinstance(systemd, str) else systemd.name
    with open(log, "w") as out:
        return subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path(), "NOTIFY_SOCKET": name, **variables},
        )


def command(url: str, *options: str) -> list[str]:
    return ["-m", "dbtaskqueue", "--url", url, "worker", "child_tasks:act", *options]


def test_the_notifications_of_a_service(systemd: Systemd, url: str, tmp_path: Path, note: Path) -> None:
    with TaskQueue(url) as queue:
        words = command(url, "--allow-commands", "--concurrency", "2", "--drain-timeout", "30")
        with ended(service(systemd, words, tmp_path / "log", WATCHDOG_USEC=SHORT)) as worker:
            until(lambda: systemd.values("READY"), what="READY")
            assert queue.stats().workers == 1
            assert systemd.values("WATCHDOG") == [] or systemd.received[0][1]["READY"] == "1"
            assert systemd.received[0][1]["STATUS"].startswith("working, running ")
            until(lambda: len(systemd.values("WATCHDOG")) >= 3, what="three notifications that it is alive")
            environment = queue.enqueue_command(["env"])
            task = queue.enqueue({"do": "until_told", "file": str(note)})
            until(lambda: note.exists())
            until(
                lambda: systemd.values("STATUS")[-1] == "working, running 1 of 2, queues default", what="another status"
            )
            assert systemd.values("STOPPING") == []
            worker.terminate()
            until(lambda: systemd.values("STOPPING"), what="STOPPING")
            assert worker.wait(60) == 0
        assert systemd.senders() == {worker.pid}
        assert systemd.values("READY") == systemd.values("STOPPING") == ["1"]
        assert (task.refresh().state, environment.refresh().state) == ("done", "done")
        output = environment.attempts()[-1].output or ""
        assert "PYTHONPATH=" in output
        assert "NOTIFY_SOCKET" not in output
        assert "WATCHDOG" not in output


@only_abstract
def test_a_watchdog_for_another_process(systemd: Systemd, url: str, tmp_path: Path, note: Path) -> None:
    with (
        TaskQueue(url) as queue,
        ended(service(systemd, command(url), tmp_path / "log", WATCHDOG_USEC=SHORT, WATCHDOG_PID="1")),
    ):
        until(lambda: systemd.values("READY"))
        queue.enqueue({"do": "until_told", "file": str(note)})
        until(lambda: len(systemd.values("STATUS")) > 1, what="READY, and after some seconds another status")
        assert systemd.values("WATCHDOG") == []


def test_a_notification_socket_without_a_listener(url: str, tmp_path: Path) -> None:
    with TaskQueue(url) as queue:
        task = queue.enqueue({"do": "return"})
        log = tmp_path / "log"
        with ended(service(f"{tmp_path}/nobody", command(url, "--burst"), log, WATCHDOG_USEC=SHORT)) as worker:
            assert worker.wait(60) == 0
        assert task.refresh().state == "done"
        assert log.read_text().count("systemd could not be notified") == 1
        assert "Traceback" not in log.read_text()


IN_A_THREAD = """
import sys, threading
from dbtaskqueue import Worker
worker = Worker(sys.argv[1])
run = lambda: worker.run(print, burst=True)
if sys.argv[2] == "main":
    run()
else:
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
"""


@only_abstract
@pytest.mark.parametrize(("thread", "ready"), [("main", ["1"]), ("another", [])])
def test_only_a_worker_in_the_main_thread_notifies_systemd(
    systemd: Systemd, url: str, tmp_path: Path, thread: str, ready: list[str]
) -> None:
    """A program may continue after a burst, so the worker does not notify systemd that it stops."""
    with ended(service(systemd, ["-c", IN_A_THREAD, url, thread], tmp_path / "log")) as program:
        assert program.wait(60) == 0
    assert systemd.values("READY") == ready
    assert systemd.values("STOPPING") == []


HANG = """
import logging, sys, time
from pathlib import Path
from dbtaskqueue import RetryPolicy, Worker
from dbtaskqueue._maintenance import supervision
proceed = Path(sys.argv[2])

def act(payload):
    assert payload != "fail"

def hang():
    while not proceed.exists():
        time.sleep(0.05)

def on_error(task, error):
    if sys.argv[3] == "worker":
        hang()
    else:
        worker._loop._executor._soon(hang)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    supervision.HANGS = 7.0  # an idle loop makes a pass every 5 s
    worker = Worker(sys.argv[1], executor="process", on_error=on_error)
    worker.run(act)
"""


@only_abstract
@pytest.mark.parametrize("loop", ["worker", "children"])
def test_a_loop_that_hangs(systemd: Systemd, url: str, tmp_path: Path, loop: str) -> None:
    script, log, proceed = tmp_path / "script.py", tmp_path / "log", tmp_path / "proceed"
    script.write_text(HANG)
    with (
        TaskQueue(url) as queue,
        ended(service(systemd, [str(script), url, str(proceed), loop], log, WATCHDOG_USEC=SHORT)) as worker,
    ):
        until(lambda: systemd.values("WATCHDOG"))
        queue.enqueue("fail", max_attempts=1)
        until(
            lambda: has_written(log, "ERROR:dbtaskqueue:the worker hangs"), what="the log line about the hanging worker"
        )
        assert "in hang" in log.read_text()
        before = len(systemd.values("WATCHDOG"))
        watch(1.0, lambda: len(systemd.values("WATCHDOG")) == before, "the watchdog must not be notified")
        proceed.touch()
        until(lambda: len(systemd.values("WATCHDOG")) > before, what="notifications of a worker that is alive again")
        task = queue.enqueue("well")
        until(lambda: task.refresh().state == "done")
        worker.terminate()
        assert worker.wait(60) == 0
