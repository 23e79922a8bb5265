"""A FastAPI application under uvicorn: transactions, clients that leave, events, and the end of the process."""

from __future__ import annotations

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from engines import execute
from helpers import until
from servers.requirements import library

from dbtaskqueue import TaskQueue

library("fastapi", "uvicorn", "sqlalchemy", "aiosqlite", "asyncpg", "aiomysql", "greenlet")

import httpx  # noqa: E402
from integrations.asgi.servers import Served, serving  # noqa: E402

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mariadb": "mysql+aiomysql"}
one_engine = pytest.mark.one_engine("the database does not decide when a process ends or a client leaves")


@pytest.fixture
def shop(queue: TaskQueue) -> TaskQueue:
    """Return the application's queue, whose schema exists."""
    return queue.lane("shop")


def events(response: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the data of each server-sent event."""
    name = "message"
    for line in response.iter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
            name = "message"


def test_a_request_stores_its_row_and_its_task_or_neither(shop: TaskQueue, tmp_path: Path) -> None:
    parts = urlsplit(shop.url)
    table = "orders_" + re.sub(r"\W", "", f"{parts.path}{parts.query}")[-40:]
    execute(shop.url, f"CREATE TABLE {table} (number INTEGER)")
    database = parts._replace(scheme=DRIVERS[parts.scheme], query="").geturl()
    if parts.scheme == "sqlite":
        database = shop.url.replace("sqlite:", "sqlite+aiosqlite:")
    in_schema = table
    if parts.scheme == "postgresql":  # execute() has made the table in the schema of the queue
        in_schema = f"{parts.query.partition('schema=')[2].partition('&')[0]}.{table}"
    with (
        serving(shop.url, tmp_path, SHOP_DATABASE=database, SHOP_TABLE=in_schema, SHOP_DRAIN="20") as served,
        served.client() as client,
    ):
        assert client.post("/orders/1?sold_out=true").status_code == 409
        stored = client.post("/orders/2").json()["id"]
        answer = client.get(f"/orders/{stored}/result").json()
        assert answer == {"result": {"order": 2, "pid": served.process.pid}}
        assert execute(shop.url, f"SELECT number FROM {table}") == [(2,)]
        assert [task.payload["args"] for task in shop.tasks()] == [[2]]
        shown = client.get(f"/tasks/{stored}").json()
        assert (shown["state"], shown["attempt"], shown["progress"]["message"]) == ("done", 1, "packed")
        assert served.stop() in (0, -15)
    assert "Traceback" not in served.log.read_text()


@one_engine
def test_events_reach_the_client_until_the_end(shop: TaskQueue, tmp_path: Path) -> None:
    with serving(shop.url, tmp_path, SHOP_DRAIN="20") as served, served.client() as client:
        id = client.post("/files/go").json()["id"]
        seen: list[tuple[str, dict[str, Any]]] = []
        with client.stream("GET", f"/tasks/{id}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for event in events(response):
                seen.append(event)
                if event[1]["progress"] and event[1]["progress"]["done"] > 0:
                    (tmp_path / "go").touch()
        states = [data["state"] for _, data in seen]
        assert states[-1] == "done"
        assert "running" in states
        assert [name for name, _ in seen].index("end") == len(seen) - 1
        assert seen[-1][1]["result"] == "seen"
        with client.stream("GET", f"/tasks/{id}/events") as response:
            assert [name for name, _ in events(response)][-1:] == ["end"]
        for path in (f"/tasks/{id}", f"/tasks/{id}/events", f"/tasks/{id + 1}", "/tasks/nonsense"):
            assert httpx.get(served.base + path, headers={"user": "eve"}, timeout=60).status_code == 404


@one_engine
def test_a_client_that_leaves_is_no_longer_served(shop: TaskQueue, tmp_path: Path) -> None:
    with serving(shop.url, tmp_path) as served, served.client() as client:
        task = shop.enqueue(meta={"user": "ann"})
        followers = [stay(served, f"/tasks/{task.id}/events") for _ in range(3)]
        waiting = stay(served, f"/orders/{task.id}/result")
        until(lambda: client.get("/followers").json() == 1)
        for each in (*followers, waiting):
            each.close()
        until(lambda: client.get("/followers").json() == 0, what="the end of following")
        assert client.get(f"/tasks/{task.id}").json()["state"] == "pending"
        with contextlib.closing(socket.create_connection(("127.0.0.1", served.port))) as raw:
            raw.sendall(b"POST /files/left HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        until(lambda: shop.stats().pending == 2, what="the task of a client that has left")
        assert client.post(f"/tasks/{task.id}/cancel").json()["state"] == "cancelled"


def stay(served: Served, path: str) -> socket.socket:
    """Send a request, and do not read the answer."""
    raw = socket.create_connection(("127.0.0.1", served.port))
    raw.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nuser: ann\r\n\r\n".encode())
    return raw


@one_engine
def test_sigterm_drains_the_worker(shop: TaskQueue, tmp_path: Path) -> None:
    """A task that ends within the drain timeout is done. The other one returns to the queue without an attempt."""
    with serving(shop.url, tmp_path, SHOP_DRAIN="3") as served, served.client() as client:
        ends, remains = (client.post(f"/files/{name}").json()["id"] for name in ("go", "never"))
        until(lambda: shop.stats().running == 2)
        served.process.terminate()
        until(lambda: "Waiting for application shutdown" in served.log.read_text())
        (tmp_path / "go").touch()
        assert served.process.wait(60) in (0, -15)
        assert "Application shutdown complete" in served.log.read_text()
    assert shop.get(ends).result == "seen"
    task = shop.get(remains)
    assert (task.state, task.attempt, [each.outcome for each in task.attempts()]) == ("pending", 0, ["released"])
    assert [worker for worker in shop.workers() if worker.lost_at is None] == []


@one_engine
def test_each_process_of_a_server_has_a_worker_and_each_task_runs_once(shop: TaskQueue, tmp_path: Path) -> None:
    with serving(shop.url, tmp_path, "--workers", "2", SHOP_DRAIN="20") as served, served.client():
        until(lambda: len(shop.workers()) == 2, within=60, what="two workers")
        calls = [{"args": [number], "kwargs": {}} for number in range(40)]
        tasks = shop.submit(list(calls), {}, "integrations.asgi.shop.pack")
        shop.wait_all(tasks, timeout=60)
        assert [(task.state, task.attempt, task.result["order"]) for task in tasks] == [
            ("done", 1, number) for number in range(40)
        ]
        assert served.process.pid not in {task.result["pid"] for task in tasks}
        assert served.stop() in (0, -15)
    until(lambda: not [worker for worker in shop.workers() if worker.lost_at is None])
