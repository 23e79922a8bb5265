"""``dbtaskqueue dashboard`` as a process: its options, its end, and clients that behave badly."""

from __future__ import annotations

import contextlib
import errno
import http.client
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cli.conftest import cli as cli
from cli.running import Cli, assert_wrong_usage
from dashboard.clients import Served, command, serve
from helpers import python_path, until

from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard import server
from dbtaskqueue.dashboard.gate import HEADERS
from dbtaskqueue.dashboard.passwords import is_password

pytestmark = pytest.mark.one_engine("the server does not depend on the database")


@pytest.fixture
def served(queue: TaskQueue) -> Iterator[Served]:
    with serve(queue.url) as served:
        yield served


def test_it_prints_one_line_when_it_answers(queue: TaskQueue, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    log = tmp_path / "log"
    with serve(queue.url, "--ready-file", ready, log=log) as served:
        assert httpx.get(f"{served.base}/health/live").text == "ok\n"
        link = f"{served.base}/?token={served.token}"
        assert until(ready.exists)
        assert ready.read_text() == f"{link}\n"
        assert stat.S_IMODE(ready.stat().st_mode) == 0o600
        with httpx.Client(follow_redirects=True, timeout=30) as browser:
            page = browser.get(link)
            assert page.status_code == 200
            assert str(page.url) == f"{served.base}/"
            assert browser.get(f"{served.base}/api/v1/me").json()["role"] == "admin"
        assert served.stop() == 0
        assert served.process.stdout is not None
        assert served.process.stdout.read() == ""
    assert served.token not in log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(served: Served, number: signal.Signals) -> None:
    assert served.stop(number) == 0


def test_it_ends_within_5_s_though_clients_hold_on(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for text in (b"", b"GET / HT", b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nx"):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            connection.sendall(text)
        started = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - started < 30  # the test of the 5 s is the watchdog below


def test_a_watchdog_ends_it_within_5_s() -> None:
    assert server._END_WITHIN < 5


# -- who may use it --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        ("--host", "0.0.0.0"),
        ("--host", "::"),
        ("--host", "192.0.2.1"),
        ("--host", "::ffff:0.0.0.0"),
        ("--host", "tasks.example.com"),
        ("--host", "0.0.0.0", "--allowed-host", "tasks.example.com"),
        ("--host", "0.0.0.0", "--read-only"),
        ("--user-header", "Remote-User"),
        ("--host", "0.0.0.0", "--user-header", "Remote-User"),
        ("--from", "10.0.0.0/8"),
        ("--user-header", "Remote-User", "--from", "10.0.0.0/33"),
        ("--user-header", "Remote-User", "--from", "10.0.0.1/8"),
        ("--hide", "password"),
        ("--port", "65536"),
    ],
)
def test_1_what_is_wrong_usage(cli: Cli, words: tuple[str, ...]) -> None:
    TaskQueue(cli.url).close()
    assert_wrong_usage(cli("dashboard", *words))


def test_1_open_to_other_machines_with_users(queue: TaskQueue, tmp_path: Path) -> None:
    line = subprocess.run(
        command("dashboard-user", "alice", "operate"),
        input="s3cret\n",
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
        check=True,
    ).stdout
    assert re.fullmatch(r"operate alice scrypt\S+\n", line)
    assert is_password("s3cret", line.split()[2])
    users = tmp_path / "users"
    users.write_text(line)
    with serve(queue.url, "--host", "0.0.0.0", "--users", users) as served:
        assert served.base.startswith("http://127.0.0.1:")
        with httpx.Client(base_url=served.base, timeout=30) as client:
            fields = {"name": "alice", "password": "s3cret"}
            assert client.post("/login", data=fields, headers={"origin": served.base}).status_code == 303
            assert client.get("/api/v1/me").json()["role"] == "operate"
            assert any(name.endswith(str(served.port)) for name in client.cookies)


@pytest.mark.parametrize(
    ("words", "password"),
    [(("alice",), "x"), (("alice", "root"), "x"), (("a b", "look"), "x"), (("", "look"), "x"), (("alice", "look"), "")],
)
def test_a_user_that_cannot_be(words: tuple[str, ...], password: str) -> None:
    environment = {**os.environ, "PYTHONPATH": python_path()}
    ended = subprocess.run(command("dashboard-user", *words), input=f"{password}\n", text=True, env=environment)
    assert ended.returncode == 2


def test_a_unix_socket(queue: TaskQueue, tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    with serve(queue.url, "--socket", path, "--user-header", "Remote-User") as served:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
            assert client.get("/api/v1/me", headers={"remote-user": "alice"}).json()["name"] == "alice"
            assert client.get("/api/v1/me").status_code == 401
        assert subprocess.run(command("--url", queue.url, "dashboard", "--socket", path), timeout=60).returncode == 1
        served.process.kill()
        served.process.wait()
    assert path.exists()
    with serve(queue.url, "--socket", path) as served:  # that of a process that was killed
        assert served.stop() == 0
    assert not path.exists()


def test_errors_at_the_start(cli: Cli, queue: TaskQueue, tmp_path: Path) -> None:
    assert "does not exist" in cli.run(command("--url", f"sqlite:///{tmp_path}/none", "dashboard")).err
    assert "cannot read" in cli("dashboard", "--users", "no-such-file").err
    with socket.create_server(("127.0.0.1", 0)) as other:
        run = cli("dashboard", "--port", str(other.getsockname()[1]))
    assert run.code == 1
    assert os.strerror(errno.EADDRINUSE) in run.err


# -- clients that behave badly ---------------------------------------------------------------------


def test_15_many_slow_clients(served: Served) -> None:
    """500 clients that trickle: others are answered meanwhile."""
    connections = []
    done = threading.Event()

    def trickle() -> None:
        while not done.wait(0.2):
            for connection in connections:
                with contextlib.suppress(OSError):
                    connection.send(b"a")

    feeder = threading.Thread(target=trickle)
    feeder.start()
    try:
        for _ in range(500):
            connection = socket.create_connection(("127.0.0.1", served.port))
            connection.setblocking(False)
            with contextlib.suppress(OSError):
                connection.send(b"GET / HTTP/1.1\r\nhost: localhost\r\nx-")
            connections.append(connection)
        for _ in range(20):
            assert httpx.get(f"{served.base}/health/live", timeout=30).status_code == 200
        with served.client() as client:
            for _ in range(20):
                assert client.get("/api/v1/me").status_code == 200
    finally:
        done.set()
        feeder.join()
        for connection in connections:
            connection.close()


def test_15_a_request_must_arrive_in_time(queue: TaskQueue, tmp_path: Path) -> None:
    """The deadline holds however often a byte arrives. It is shortened in the process that serves."""
    code = "import dbtaskqueue.dashboard.server as s; s.RECEIVE_WITHIN = 3.0; from dbtaskqueue.cli import main; main()"
    words = ["--url", queue.url, "dashboard", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        served = Served(process, process.stdout.readline())
        head = b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 900\r\n\r\n"
        for text in (b"", b"GET / HTTP/1.1\r\nx-", head):
            connection = socket.create_connection(("127.0.0.1", served.port))
            connection.sendall(text)
            until(lambda connection=connection: is_closed_after(connection, b"a"))  # type: ignore[misc]
        with served.client() as client:  # one connection with several requests, over a longer time
            for _ in range(8):
                assert client.get("/api/v1/me").status_code == 200
                time.sleep(0.5)
    finally:
        process.kill()
        process.communicate()


def is_closed_after(connection: socket.socket, data: bytes) -> bool:
    """Send a byte; return whether the other side has closed the connection."""
    try:
        connection.send(data)
        connection.settimeout(0.05)
        return connection.recv(1000) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize(
    "text",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"POST /login HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"POST /login HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nx: a\nb: c\r\n y\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /%00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET //evil.example/ HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /tasks/%2e%2e/settings HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_strange_requests_are_refused(served: Served, text: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(text)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert 400 <= answer.status < 500
        assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]
        assert answer.headers["server"] is None
    assert httpx.get(f"{served.base}/health/live").status_code == 200


def test_22_a_hostile_request_writes_no_line_into_the_log(queue: TaskQueue, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serve(queue.url, log=log) as served:
        with served.client() as client:
            client.get("/x%0aERROR%20forged%1b[31m", params={"token": "secret"})
            client.get("/api/v1/tasks/1%0aforged")
        assert served.stop() == 0
    text = log.read_text()
    assert "secret" not in text
    assert "\x1b" not in text
    assert not re.search("^(ERROR )?forged", text, re.MULTILINE)
