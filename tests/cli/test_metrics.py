"""dbtaskqueue metrics: printed, written to a file and served; dbtaskqueue health."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.client
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from cli.running import WITHIN, Cli, assert_explained, assert_wrong_usage
from helpers import until
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from servers.ports import free_port

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue._formats.hosts import host_name, is_loopback
from dbtaskqueue.metrics import MetricsCache, cache
from dbtaskqueue.metrics.access import Tokens
from dbtaskqueue.metrics.server import MetricsServer
from dbtaskqueue.monitoring import serving as server

TOKEN = "a" * 43
TEXT, OPENMETRICS = "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0"


def up(text: str) -> float:
    [value] = [sample.value for family in parse_text(text) for sample in family.samples if family.name == UP]
    return float(value)


UP = "dbtaskqueue_up"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    """A file with a token of a program that may look."""
    file = tmp_path / "tokens.txt"
    file.write_text(f"# for Prometheus\n\nlook prometheus {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    return file


# -- once ------------------------------------------------------------------------------------------


def test_metrics_are_printed(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    Worker(queue).run(str, burst=True)
    ended = cli("metrics")
    assert (ended.code, ended.err) == (0, "")
    assert up(ended.out) == 1
    assert 'dbtaskqueue_tasks{queue="default",state="done"} 3.0' in ended.out
    assert 'dbtaskqueue_attempts_total{function="(callback)",outcome="done",queue="default"} 3.0' in ended.out


def test_names_do_not_reach_a_terminal(cli: Cli, queue: TaskQueue, tmp_path: Path) -> None:
    import sqlite3

    task = queue.enqueue("x")
    [held] = queue.fetch()
    held.start()
    with contextlib.closing(sqlite3.connect(tmp_path / "taskqueue.sqlite")) as connection, connection:
        connection.execute("UPDATE dbtaskqueue_task SET function = ? WHERE id = ?", ("a\x1b]0;evil\x07\x00b", task.id))
    ended = cli("metrics")
    assert all(char.isprintable() or char == "\n" for char in ended.out)
    assert r'function="a\\x1b]0;evil\\x07\\x00b"' in ended.out
    held.finish()


def test_metrics_of_a_missing_database(cli: Cli) -> None:
    assert_explained(cli("metrics"), "taskqueue.sqlite")


def test_metrics_are_written_to_a_file(cli: Cli, queue: TaskQueue, tmp_path: Path) -> None:
    file = tmp_path / "tasks.prom"
    file.write_text("old")
    with file.open() as reader:
        assert cli("metrics", "--output", file) == (0, "", "")
        assert reader.read() == "old"  # a reader sees the old file or the new one, never a part
    assert up(file.read_text()) == 1
    assert file.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.glob("*prom*")) == ["tasks.prom"]


def test_a_file_says_that_the_database_is_unavailable(tmp_path: Path) -> None:
    file = tmp_path / "tasks.prom"
    cli = Cli(f"postgresql://nobody@127.0.0.1:{free_port()}/x", tmp_path)
    assert_explained(cli("metrics", "--output", file), "connect")
    assert up(file.read_text()) == 0


def test_a_file_that_cannot_be_written(cli: Cli, queue: TaskQueue, tmp_path: Path) -> None:
    assert_explained(cli("metrics", "--output", tmp_path / "missing" / "tasks.prom"), "missing")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--listen", "9108"], "HOST:PORT"),
        (["--listen", "127.0.0.1:"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--listen", "\x1b:x"], r"\x1b"),
        (["--listen", "no.such.host.invalid:0"], "no.such.host.invalid"),
        (["--listen", "0.0.0.0:0"], "--token-file"),
        (["--listen", "[::]:0"], "--token-file"),
        (["--listen", "[::ffff:0.0.0.0]:0"], "--token-file"),
        (["--listen", "127.0.0.1:0", "--output", "x.prom"], "cannot be combined"),
        (["--token-file", "x"], "--listen"),
        (["--listen", "127.0.0.1:0", "--token-file", "missing.txt"], "missing.txt"),
    ],
)
def test_wrong_usage(cli: Cli, queue: TaskQueue, words: list[str], text: str) -> None:
    assert_wrong_usage(cli("metrics", *words), text)


def test_without_prometheus_client_the_command_says_what_to_install(cli: Cli, queue: TaskQueue) -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; from dbtaskqueue.cli import main; main()"
    ended = cli.run([sys.executable, "-c", program, "--url", cli.url, "metrics"])
    assert_explained(ended, "dbtaskqueue[metrics]")


# -- served ----------------------------------------------------------------------------------------


class Answer(NamedTuple):
    status: int
    kind: str
    body: bytes
    encoding: str | None


def ask(address: str, path: str = "/metrics", method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(address, timeout=WITHIN)
    with contextlib.closing(connection):
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        found = connection.getresponse()
        return Answer(found.status, found.headers["Content-Type"], found.read(), found.headers["Content-Encoding"])


@contextlib.contextmanager
def serving(cli: Cli, *words: object) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run ``metrics --listen``; yield the process and its address."""
    with cli.started("metrics", "--listen", *words) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        found = re.fullmatch(r"metrics: http://(.*)/metrics\n", line)
        assert found, (line, process.stderr and process.stderr.read())
        yield process, found[1]


def test_metrics_are_served_until_sigterm(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("x")
    with serving(cli, "127.0.0.1:0") as (process, address):
        text = ask(address)
        assert (text.status, text.kind) == (200, TEXT)
        assert up(text.body.decode()) == 1
        assert b'dbtaskqueue_tasks{queue="default",state="pending"} 1.0' in text.body
        other = ask(address, Accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
        assert other.kind.startswith(OPENMETRICS)
        assert list(parse_openmetrics(other.body.decode()))
        packed = ask(address, Accept_Encoding="gzip")
        assert packed.encoding == "gzip"
        assert up(gzip.decompress(packed.body).decode()) == 1
        assert ask(address, method="HEAD") == (200, TEXT, b"", None)
        assert ask(address, "/metrics?x=1").status == 200
        assert ask(address, "/").status == 404
        assert ask(address, "/metrics/x").status == 404
        assert ask(address, method="POST").status == 501
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN) == 0


def test_other_names_of_this_machine_are_refused(cli: Cli, queue: TaskQueue) -> None:
    """DNS rebinding: a page of another site may ask a server on this machine by a name of its own."""
    with serving(cli, "127.0.0.1:0") as (_, address):
        port = address.rpartition(":")[2]
        assert ask(address, Host=f"localhost:{port}").status == 200
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example", ""):
            refused = ask(address, Host=host)
            assert (refused.status, b"dbtaskqueue_" in refused.body) == (421, False), host


def test_tokens_protect_the_metrics(cli: Cli, queue: TaskQueue, tokens: Path) -> None:
    with serving(cli, "0.0.0.0:0", "--token-file", tokens) as (_, address):
        address = address.replace("0.0.0.0", "127.0.0.1")
        assert ask(address, Host="tasks.example.com", Authorization=f"Bearer {TOKEN}").status == 200
        for given in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
            refused = ask(address, **given)
            assert (refused.status, b"dbtaskqueue_" in refused.body) == (401, False), given
        tokens.write_text("")
        assert ask(address, Authorization=f"Bearer {TOKEN}").status == 401


@pytest.mark.parametrize(
    "line", ["look x", "look x y", f"boss x {'0' * 64}", f"look x {'0' * 63}g", f"look a b {'0' * 64}"]
)
def test_a_wrong_line_of_tokens_is_refused(cli: Cli, queue: TaskQueue, tokens: Path, line: str) -> None:
    tokens.write_text(tokens.read_text() + line)
    assert_wrong_usage(cli("metrics", "--listen", "127.0.0.1:0", "--token-file", tokens), "line 4")


def test_a_file_of_tokens_that_is_removed_admits_no_one(tokens: Path) -> None:
    found = Tokens(str(tokens))
    assert found.accept(f"Bearer {TOKEN}")
    tokens.unlink()
    assert not found.accept(f"Bearer {TOKEN}")


def test_names_of_this_machine() -> None:
    hosts = ["localhost", "LOCALHOST:1", "127.0.0.1:9108", "127.1.2.3", "[::1]:9108", "[::1]", "[::ffff:127.0.0.1]:1"]
    assert [host for host in hosts if not is_loopback(host_name(host))] == []
    others = ["", "example.com", "127.0.0.1.example.com", "[::]", "0.0.0.0", "10.0.0.1:9108", "[::ffff:10.0.0.1]", "["]
    assert [host for host in others if is_loopback(host_name(host))] == []


def test_the_database_is_away_and_comes_back(cli: Cli) -> None:
    with serving(cli, "127.0.0.1:0") as (process, address):
        found = ask(address)
        assert (found.status, up(found.body.decode())) == (200, 0)
        assert b"dbtaskqueue_tasks" not in found.body
        with TaskQueue(cli.url) as queue:
            queue.enqueue("x")
            until(lambda: up(ask(address).body.decode()) == 1, what="the database answers")
        assert b'dbtaskqueue_tasks{queue="default",state="pending"} 1.0' in ask(address).body
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=WITHIN)
        assert errors.decode().count("metrics cannot be counted") == 1


# -- in a program ----------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_INTERVAL", 0.05)


class Counted:
    """A database that says how often its queues were counted, and can be held up."""

    def __init__(self, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self._real = queue.store.queue_counts
        monkeypatch.setattr(queue.store, "queue_counts", self._count)

    def _count(self) -> object:
        self.number += 1
        assert self.may_answer.wait(WITHIN)
        return self._real()


def test_counting_happens_in_the_background(queue: TaskQueue, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(queue, monkeypatch)
    metrics = MetricsCache(queue.store)
    try:
        first = metrics.render()
        until(lambda: counted.number >= 3, what="counted without being asked")
        counted.may_answer.clear()
        queue.enqueue("x")
        assert metrics.render()[0] == first[0]  # the last result, while a count is in progress
        counted.may_answer.set()
        until(lambda: b'state="pending"} 1.0' in metrics.render()[0], what="the new task is counted")
    finally:
        metrics.close()


def test_nothing_is_counted_while_no_one_asks(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_INTERVAL", 0.0)
    monkeypatch.setattr(cache, "pause_after", lambda seconds, share: 0.0)
    monkeypatch.setattr(cache, "_IDLE", 0.0)
    counted = Counted(queue, monkeypatch)
    metrics = MetricsCache(queue.store)
    try:
        assert counted.number == 0
        metrics.render()
        for _ in range(100):  # a thread that does not pause would count meanwhile
            queue.stats()
        assert counted.number <= 2
    finally:
        metrics.close()


def test_a_database_that_hangs_counts_as_unavailable(
    queue: TaskQueue, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_PATIENCE", 0.1)
    monkeypatch.setattr(cache, "_LATE", 0.2)
    counted = Counted(queue, monkeypatch)
    metrics = MetricsCache(queue.store)
    try:
        until(lambda: up(metrics.render()[0].decode()) == 1, what="up")
        counted.may_answer.clear()
        until(lambda: up(metrics.render()[0].decode()) == 0, what="down")
        counted.may_answer.set()
        until(lambda: up(metrics.render()[0].decode()) == 1, what="up again")
    finally:
        counted.may_answer.set()
        metrics.close()


def test_slow_clients_do_not_keep_others_out(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MOST_REQUESTS", 5)
    monkeypatch.setattr(server, "_DEADLINE", 1.0)
    metrics = MetricsCache(queue.store)
    with MetricsServer(metrics, "127.0.0.1", 0) as serving, contextlib.ExitStack() as stack:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        clients = [stack.enter_context(socket.create_connection(serving.server_address[:2])) for _ in range(8)]

        def trickle() -> bool:
            """Send a byte by each connection, and report whether a request is answered again."""
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"G")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return ask(serving.url.split("/")[2]).status == 200
            time.sleep(0.05)
            return False

        until(trickle, what="a request is answered")
        serving.shutdown()
    metrics.close()


# -- health ----------------------------------------------------------------------------------------


def test_health(cli: Cli, queue: TaskQueue) -> None:
    assert cli("health") == (1, "0 live workers, at least 1 required\n", "")
    assert cli("health", "--min-workers", 0) == (0, "ok\n", "")
    queue.enqueue("x")
    found = until(lambda: ended if (ended := cli("health", "--max-wait", "0s")).out.count("\n") == 2 else None)
    assert found.code == 1
    assert re.fullmatch(r"queue default: a due task has waited \d+s, at most 0s allowed\n0 live .*\n", found.out)
    assert cli("--queue", "other", "health", "--max-wait", "0s", "--min-workers", 0) == (0, "ok\n", "")
    with TaskQueue(cli.url) as other:
        other.fetch()  # registers a live user
        assert cli("health") == (0, "ok\n", "")


def test_health_of_a_database_that_is_unavailable(tmp_path: Path) -> None:
    cli = Cli(f"postgresql://nobody@127.0.0.1:{free_port()}/x", tmp_path)
    assert_explained(cli("health"), "connect")


def test_wrong_options_of_health(cli: Cli, queue: TaskQueue) -> None:
    assert_wrong_usage(cli("health", "--max-wait", "x"), "invalid duration")
    assert_wrong_usage(cli("health", "--min-workers", "-1"), "-1")
