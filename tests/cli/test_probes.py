"""dbtaskqueue worker --alive-file and --http: probes of one worker."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli.running import WITHIN, Cli, assert_wrong_usage
from helpers import Background, until

from dbtaskqueue import StoreUnavailable, TaskQueue, Worker
from dbtaskqueue._worker import loop
from dbtaskqueue.monitoring import liveness
from dbtaskqueue.monitoring.liveness import probing

TASKS = """
import os, time

def stay(payload):
    open("started", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
"""


def ask(origin: str, path: str, method: str = "GET") -> tuple[int, str]:
    """Return the status and the text of an answer."""
    connection = http.client.HTTPConnection(urlsplit(origin).netloc, timeout=WITHIN)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def origin_of(process: subprocess.Popen[bytes]) -> str:
    """Return the address that a worker has logged."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(rb"probes are answered url=(\S+)/health/live", line):
            return found[1].decode()
    raise AssertionError("the worker logs no address")


@pytest.fixture
def tasks(cli: Cli) -> None:
    Path(cli.directory, "tasks.py").write_text(TASKS)


@pytest.mark.usefixtures("tasks")
def test_a_worker_with_a_long_task_is_alive_and_one_that_drains_is_not_ready(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(1)
    alive = Path(cli.directory, "alive")
    options = ("--alive-file", alive, "--http", "127.0.0.1:0", "--drain-timeout", "60")
    with cli.started("worker", "tasks:stay", *options) as process:
        origin = origin_of(process)
        until(lambda: Path(cli.directory, "started").exists())
        assert ask(origin, "/health/live") == (200, "working\n")
        assert ask(origin, "/health/ready?verbose=1") == (200, "working\n")
        assert ask(origin, "/health/ready", "HEAD") == (200, "")
        assert ask(origin, "/metrics") == (404, "the probes are at /health/live and /health/ready\n")
        os.utime(alive, (0, 0))
        until(lambda: alive.stat().st_mtime > 0, what="the file is touched again")
        process.send_signal(signal.SIGTERM)
        until(lambda: ask(origin, "/health/ready") == (503, "stopping\n"))
        assert ask(origin, "/health/live") == (200, "stopping\n")
        Path(cli.directory, "go").touch()
        assert process.wait(WITHIN) == 0
    assert task.refresh().state == "done"


@pytest.mark.usefixtures("tasks")
def test_mistakes_are_explained(cli: Cli) -> None:
    for word in ("8080", ":8080", "localhost:http", "localhost:99999"):
        assert_wrong_usage(cli("worker", "tasks:stay", "--http", word), "HOST:PORT")
    missing = str(cli.directory / "missing" / "alive")
    run = cli("worker", "tasks:stay", "--burst", "--alive-file", missing)
    assert (run.code, f"No such file or directory: '{missing}'" in run.err, "Traceback" in run.err) == (1, True, False)
    run = cli("worker", "tasks:stay", "--burst", "--http", "no.such.name.invalid:0")
    assert (run.code, "there is no address 'no.such.name.invalid'" in run.err) == (1, True)
    with cli.started("worker", "tasks:stay", "--http", "127.0.0.1:0") as process:
        taken = urlsplit(origin_of(process)).netloc
        run = cli("worker", "tasks:stay", "--burst", "--http", taken)
        assert (run.code, "Address already in use" in run.err) == (1, True)


@pytest.fixture
def proceed() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_worker_whose_loop_hangs_is_not_alive(
    queue: TaskQueue, tmp_path: Path, proceed: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "_INTERVAL", 0.01)
    file = tmp_path / "alive"
    hangs = threading.Event()

    def hang(task: object, error: BaseException) -> None:
        hangs.set()
        proceed.wait(60)

    def fail(payload: object) -> None:
        raise ValueError(payload)

    worker = Worker(queue, on_error=hang)
    assert worker.health() == (True, False, "not running")
    queue.enqueue(1, max_attempts=1)
    with probing(worker, str(file), None):
        run = Background(lambda: worker.run(fail))
        assert hangs.wait(30)
        assert worker.health().alive
        monkeypatch.setattr(loop, "HANGS", 0.05)
        until(lambda: worker.health() == (False, False, "hangs"))
        until(lambda: _is_left_alone(file), what="the file is no longer touched")
        monkeypatch.undo()
        proceed.set()
        until(lambda: worker.health() == (True, True, "working"))
        until(lambda: not _is_left_alone(file), what="the file is touched again")
        worker.stop()
        run.join()
    assert worker.health().status == "not running"


def test_a_worker_that_starts_in_an_outage_is_alive(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    is_down = True
    store_declarations = queue.store_declarations

    def declare(queues: list[str]) -> list[str]:
        if is_down:
            raise StoreUnavailable("down")
        return store_declarations(queues)

    monkeypatch.setattr(queue, "store_declarations", declare)
    monkeypatch.setattr(loop, "HANGS", 1.0)
    monkeypatch.setattr(loop, "_RETRY_PAUSE", (0.01, 0.1))
    worker = Worker(queue)
    run = Background(lambda: worker.run(lambda payload: None))
    until(lambda: worker.health() == (True, False, "database unavailable"))
    threading.Event().wait(1.5)  # longer than a loop that hangs is called alive
    assert worker.health() == (True, False, "database unavailable")
    is_down = False
    until(lambda: worker.health() == (True, True, "working"))
    worker.stop()
    run.join()


def test_requests_without_a_thread_take_no_place_from_later_ones(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise RuntimeError("can't start new thread")

    with liveness._ProbeServer(Worker(queue), "127.0.0.1", 0) as server:
        serving = Background(server.serve_forever)
        with monkeypatch.context() as patch:
            patch.setattr(socketserver.ThreadingMixIn, "process_request", refuse)
            for _ in range(60):
                with pytest.raises((http.client.HTTPException, ConnectionError)):
                    ask(server.origin, "/health/live")
        assert ask(server.origin, "/health/live") == (200, "not running\n")
        server.shutdown()
        serving.join()


def _is_left_alone(file: Path) -> bool:
    """Return whether a file is not touched for ten times the interval."""
    os.utime(file, (0, 0))
    threading.Event().wait(0.1)
    return file.stat().st_mtime == 0


def test_a_file_that_cannot_be_touched_any_more_does_not_stop_the_worker(
    queue: TaskQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(liveness, "_INTERVAL", 0.01)
    file = tmp_path / "directory" / "alive"
    file.parent.mkdir()
    with probing(Worker(queue), str(file), None):
        until(lambda: file.exists())
        file.parent.rename(tmp_path / "elsewhere")
        until(lambda: "the alive file cannot be touched" in caplog.text)
        file.parent.mkdir()
        until(file.exists, what="the file is touched again")
    assert caplog.text.count("cannot be touched") == 1
