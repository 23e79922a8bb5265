"""A worker's load on a server: three connections, two statements a second when idle, and no open transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from engines import execute
from helpers import Background, until
from servers.proxy import CuttingProxy
from servers.requirements import must_be_ours
from servers.wire import MariaDBConversation, PostgreSQLConversation

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue._store import polling

CONVERSATION = {"postgresql": PostgreSQLConversation, "mariadb": MariaDBConversation}
OPEN = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbtaskqueue'"
    " AND now() - xact_start > interval '5 seconds'",
    "mariadb": "SELECT count(*) FROM information_schema.innodb_trx JOIN information_schema.processlist"
    " ON id = trx_mysql_thread_id WHERE db = database() AND trx_started < now() - INTERVAL 5 SECOND",
}
"""Counts transactions that are older than any of a worker should be, even on a machine that is busy with other tests.
"""


@pytest.fixture
def proxy(engine: str, url: str) -> Iterator[CuttingProxy]:
    """A proxy in front of the engine's server, which counts statements."""
    must_be_ours(engine)
    with TaskQueue(url), CuttingProxy(urlsplit(url).port or 0, CONVERSATION[engine]) as proxy:
        yield proxy


@pytest.fixture
def queue(proxy: CuttingProxy, url: str) -> Iterator[TaskQueue]:
    """A handle through the proxy, without connections of its own until a worker uses it."""
    with TaskQueue(proxy.url(url)) as queue:
        yield queue


def watched(seconds: float, look: Callable[[], int]) -> int:
    """The highest number that was seen during this many seconds."""
    deadline, most = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        most = max(most, look())
        time.sleep(0.15)  # MariaDB refreshes its list of transactions only after 0.1 s without a query for it
    return most


@pytest.mark.parametrize("size", [1, 16])
def test_a_busy_worker_has_three_connections_and_no_open_transaction(
    queue: TaskQueue, url: str, engine: str, proxy: CuttingProxy, size: int
) -> None:
    worker = Worker(queue, concurrency=size)
    leave = threading.Event()

    def look() -> int:
        return max(proxy.connections, 1000 * old_transactions(engine, url))

    with TaskQueue(url) as direct:
        direct.enqueue_many([0.001] * 200 + [60] * size)
        running = Background(lambda: worker.run(leave.wait))
        until(lambda: direct.stats().running == size, what="long tasks in each thread")
        most = watched(7.0, look)
        leave.set()
        until(lambda: direct.stats().done == 200 + size)
        most = max(most, watched(7.0, look))
        worker.stop()
        running.join()
    assert 1 <= most <= 3


def old_transactions(engine: str, url: str) -> int:
    return int(execute(url, OPEN[engine])[0][0])


def test_an_idle_worker_by_pattern_sends_at_most_two_queries_a_second(
    queue: TaskQueue, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which queues there are, and when the next task of the one queue is due. Its maintenance asks as always."""
    monkeypatch.setattr(polling, "_SHORTEST", polling._LONGEST)  # as after a minute without a task
    store, asked = queue.store, [0]

    def counted(ask: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any, **options: Any) -> Any:
            asked[0] += 1
            return ask(*given, **options)

        return run

    monkeypatch.setattr(store, "queues", counted(store.queues))
    monkeypatch.setattr(store, "next_due", counted(store.next_due))
    worker = Worker(queue, queues=["*"])
    running = Background(lambda: worker.run(lambda payload: None))
    with TaskQueue(url) as direct:
        task = direct.enqueue()
        until(lambda: task.refresh().state == "done", what="the last task")
    before, started = asked[0], time.monotonic()
    watched(6, lambda: 0)
    assert asked[0] - before <= 2 * (time.monotonic() - started) + 2
    worker.stop()
    running.join()


def test_an_idle_worker_runs_at_most_two_statements_a_second(
    queue: TaskQueue, url: str, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "_SHORTEST", polling._LONGEST)  # as after a minute without a task
    worker = Worker(queue)
    running = Background(lambda: worker.run(lambda payload: None))
    with TaskQueue(url) as direct:
        task = direct.enqueue()
        until(lambda: task.refresh().state == "done", what="the last task")
        until(lambda: direct.store.samples(0), what="the sample of this minute")
    watched(0.5, lambda: 0)  # the end of the duty that has stored it
    before, started = proxy.statements, time.monotonic()
    watched(8, lambda: 0)
    statements = proxy.statements - before
    assert statements <= 2 * (time.monotonic() - started) + 2
    worker.stop()
    running.join()
