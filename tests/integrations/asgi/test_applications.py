"""Applications in this process: Starlette, FastAPI and Litestar, their lifespans, and the routes about tasks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import until
from integrations.environments import environment
from servers.requirements import library

from dbtaskqueue import (
    AsyncTask,
    AsyncTaskQueue,
    StoreUnavailable,
    TaskQueue,
    TaskQueueError,
    Worker,
    current_task,
)

library("starlette", "fastapi", "litestar", "httpx")

from fastapi import Depends, FastAPI, HTTPException  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse  # noqa: E402
from starlette.routing import Mount, Route  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from dbtaskqueue.integrations import starlette as integration  # noqa: E402
from dbtaskqueue.integrations.starlette import task_router  # noqa: E402

pytestmark = pytest.mark.one_engine("the database does not decide how an application starts, or what it answers")


@pytest.fixture
def shop(url: str) -> AsyncTaskQueue:
    """Return a queue that is not open."""
    return AsyncTaskQueue(url, "shop")


@pytest.fixture
def client(shop: AsyncTaskQueue) -> Iterator[TestClient]:
    """Return a client of an application with public routes."""
    app = Starlette(lifespan=shop.lifespan, routes=[Mount("/tasks", task_router(shop, public=True))])
    with TestClient(app) as client:
        yield client


# -- routes ----------------------------------------------------------------------------------------


def test_a_task_is_shown_without_texts_of_errors(shop: AsyncTaskQueue, client: TestClient) -> None:
    task = shop.sync.enqueue(max_attempts=1)
    [held] = shop.sync.fetch()
    assert held.start()
    shown = client.get(f"/tasks/{task.id}")
    assert shown.headers["cache-control"] == "no-store"
    assert shown.json() == {
        "id": task.id,
        "state": "running",
        "attempt": 1,
        "progress": None,
        "result": None,
        "created_at": task.created_at.isoformat(),
        "started_at": shop.sync.get(task.id).started_at.isoformat(),  # type: ignore[union-attr]
        "finished_at": None,
    }
    held.fail("the password is secret")
    for answer in (client.get(f"/tasks/{task.id}"), client.get(f"/tasks/{task.id}/events")):
        assert "abandoned" in answer.text
        assert "secret" not in answer.text
    assert client.post(f"/tasks/{task.id}/cancel").status_code == 409


def test_progress_is_not_sent_twice_and_has_an_eta_only_while_the_task_runs(
    shop: AsyncTaskQueue, client: TestClient
) -> None:
    task = shop.sync.enqueue()
    while_running = []

    def half(_: object) -> None:
        for done in (0, 2):
            current_task().progress(done, 4)
        until(lambda: client.get(f"/tasks/{task.id}").json()["progress"])
        while_running.append(client.get(f"/tasks/{task.id}").json()["progress"])

    Worker(shop.sync).run(half, max_tasks=1)
    assert while_running[0]["eta"] is not None
    name, data = client.get(f"/tasks/{task.id}/events").text.strip().splitlines()
    assert name == "event: end"
    assert json.loads(data.removeprefix("data: "))["progress"] == {**while_running[0], "eta": None}


@pytest.mark.parametrize("id", ["99", "x", "-1", "0", "1.0", "٣", "9" * 19, "9" * 5000])
def test_404_what_is_no_task(id: str, client: TestClient) -> None:
    for answer in (
        client.get(f"/tasks/{id}"),
        client.get(f"/tasks/{id}/events"),
        client.post(f"/tasks/{id}/cancel"),
    ):
        assert (answer.status_code, answer.json()) == (404, {"detail": "there is no such task"})


def test_404_a_task_of_another_queue(shop: AsyncTaskQueue, client: TestClient) -> None:
    task = shop.sync.lane("mail").enqueue()
    assert client.post(f"/tasks/{task.id}/cancel").status_code == 404
    assert task.refresh().state == "pending"
    assert client.post(f"/tasks/{shop.sync.enqueue().id}/cancel").json()["state"] == "cancelled"
    assert client.get(f"/tasks/{task.id}/cancel").status_code == 405


def test_503_while_the_database_is_unavailable(
    shop: AsyncTaskQueue, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object) -> None:
        raise StoreUnavailable("secret place")

    monkeypatch.setattr(shop.sync.store, "get", unavailable)
    answer = client.get("/tasks/1")
    assert (answer.status_code, "secret" in answer.text) == (503, False)


def test_a_silent_stream_has_comments(
    shop: AsyncTaskQueue, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integration, "_KEEP_ALIVE", 0.01)
    task = shop.sync.enqueue()
    lines = []
    with client.stream("GET", f"/tasks/{task.id}/events") as response:
        for line in response.iter_lines():
            lines.append(line)
            if line == ": the task has not changed" and lines.count(line) == 2:
                task.cancel()
    assert lines[0].startswith("data: {")
    assert lines[-3:-1] == ["event: end", lines[-2]]


def test_a_stream_survives_an_outage(shop: AsyncTaskQueue, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integration, "_RETRY", 0.01)
    task = shop.sync.enqueue()
    get, failures = shop.sync.store.get, []

    def fail_twice(*given: Any) -> Any:
        if len(failures) < 2:
            failures.append(given)
            raise StoreUnavailable("for a moment")
        return get(*given)

    comments, states = 0, []
    with client.stream("GET", f"/tasks/{task.id}/events") as response:
        for line in response.iter_lines():
            comments += line == ": the database is unavailable"
            if line.startswith("data"):
                states.append(json.loads(line.partition(": ")[2])["state"])
                if len(states) == 1:
                    task.cancel()
                    monkeypatch.setattr(shop.sync.store, "get", fail_twice)
    assert (comments, states) == (2, ["pending", "cancelled"])


def test_a_task_that_is_pruned_ends_its_stream(shop: AsyncTaskQueue, client: TestClient) -> None:
    task = shop.sync.enqueue()
    with client.stream("GET", f"/tasks/{task.id}/events") as response:
        lines = []
        for line in response.iter_lines():
            lines.append(line)
            if len(lines) == 1:
                task.cancel()
                shop.sync.delete(task.id)
    seen = [line for line in lines if line]
    assert seen[0] == lines[0]
    assert seen[1:2] in ([], ["event: end"])  # the stream may see the cancel before the delete


def test_a_check_decides_who_sees_a_task(shop: AsyncTaskQueue) -> None:
    async def check(request: Request, task: AsyncTask[Any]) -> bool:
        user = request.headers.get("user")
        if user is None:
            raise HTTPException(401, "who are you?")
        return task.meta.get("user") == user

    app = FastAPI(lifespan=shop.lifespan)
    app.mount("/tasks", task_router(shop, check=check))
    with TestClient(app) as client:
        task = shop.sync.enqueue(meta={"user": "ann"})
        status = {
            user: client.post(f"/tasks/{task.id}/cancel", headers={} if user is None else {"user": user}).status_code
            for user in (None, "eve", "ann")
        }
        assert status == {None: 401, "eve": 404, "ann": 200}


def test_a_router_without_a_check_is_refused(shop: AsyncTaskQueue) -> None:
    with pytest.raises(TypeError, match="check="):
        task_router(shop)
    with pytest.raises(TypeError, match="public=True"):
        task_router(shop, check=lambda request, task: True, public=True)
    with pytest.raises(TypeError, match="AsyncTaskQueue, not TaskQueue"):
        task_router(shop.sync, public=True)  # type: ignore[arg-type]


# -- lifespans -------------------------------------------------------------------------------------


def test_an_application_can_be_started_again(shop: AsyncTaskQueue) -> None:
    """As tests of applications do: their queue is at the top of a module."""

    async def enqueue(request: Request) -> JSONResponse:
        assert request.state.task_queue is shop
        return JSONResponse((await shop.enqueue()).id)

    app = Starlette(lifespan=shop.lifespan, routes=[Route("/", enqueue)])
    for start in (1, 2):
        with TestClient(app) as client:
            assert [client.get("/").json() for _ in range(2)] == [2 * start - 1, 2 * start]
        assert not shop.is_closed


def test_the_end_of_an_application_releases_what_it_has_reserved(shop: AsyncTaskQueue) -> None:
    held: list[Any] = []

    async def fetch(request: Request) -> JSONResponse:
        held.extend(await shop.fetch())
        return JSONResponse(None)

    app = Starlette(lifespan=shop.lifespan, routes=[Route("/", fetch)])
    with TestClient(app) as client:
        task = shop.sync.enqueue()
        client.get("/")
        assert task.refresh().state == "reserved"
    assert task.refresh().state == "pending"


def test_a_dependency_provides_the_queue(shop: AsyncTaskQueue) -> None:
    app = FastAPI(lifespan=shop.lifespan)
    dependency: Any = Depends(shop)

    @app.post("/")
    async def enqueue(queue: AsyncTaskQueue = dependency) -> int:
        assert queue is shop
        return (await queue.enqueue()).id

    with TestClient(app) as client:
        assert client.post("/").json() == 1


def test_a_worker_runs_in_the_application(shop: AsyncTaskQueue) -> None:
    app = Starlette(lifespan=shop.lifespan_with_worker(lambda payload: payload + 1, concurrency=2))
    for _ in range(2):
        with TestClient(app):
            assert shop.sync.enqueue(1).get_result(timeout=60) == 2
            assert [worker.queues for worker in shop.sync.workers() if worker.lost_at is None] == [["shop"]]
        assert [worker for worker in shop.sync.workers() if worker.lost_at is None] == []


def test_an_application_whose_worker_cannot_run_does_not_start(shop: AsyncTaskQueue) -> None:
    with (
        pytest.raises(TypeError, match="Import the modules"),
        TestClient(Starlette(lifespan=shop.lifespan_with_worker())),
    ):
        pass
    app = Starlette(lifespan=shop.lifespan_with_worker(str, concurrency=0))
    with pytest.raises(ValueError, match="concurrency"), TestClient(app):
        pass


def test_a_lifespan_of_ones_own(shop: AsyncTaskQueue) -> None:
    import contextlib

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> Any:
        async with shop.lifespan(app):
            yield

    with TestClient(Starlette(lifespan=lifespan)):
        assert shop.is_open


def test_litestar(shop: AsyncTaskQueue) -> None:
    from litestar import Litestar, asgi, get
    from litestar.di import Provide
    from litestar.testing import TestClient as LitestarClient

    @get("/", dependencies={"queue": Provide(shop)})
    async def enqueue(queue: AsyncTaskQueue) -> int:
        return (await queue.enqueue(2)).id

    @get("/result")
    async def result(id: int) -> int:
        return await (await shop.get(id)).get_result(timeout=60)

    tasks = asgi("/tasks", is_mount=True, copy_scope=True)(task_router(shop, public=True))
    app = Litestar([enqueue, result, tasks], lifespan=[shop.lifespan_with_worker(lambda payload: 2 * payload)])
    with LitestarClient(app) as client:
        id = client.get("/").json()
        assert client.get(f"/result?id={id}").json() == 4
        assert client.get(f"/tasks/{id}").json()["result"] == 4
        assert client.get("/tasks/99").status_code == 404
    until(lambda: not [worker for worker in shop.sync.workers() if worker.lost_at is None])


# -- versions --------------------------------------------------------------------------------------

SCRIPT = """
import sys
from starlette.applications import Starlette
from starlette.testclient import TestClient
from dbtaskqueue import AsyncTaskQueue
from dbtaskqueue.integrations.starlette import task_router
queue = AsyncTaskQueue(sys.argv[1], "shop")
app = Starlette(lifespan=queue.lifespan_with_worker(str.upper))
app.mount("/tasks", task_router(queue, public=True))
with TestClient(app) as client:
    task = queue.sync.enqueue("hello")
    events = client.get(f"/tasks/{task.id}/events").text
    assert events.strip().splitlines()[-2] == "event: end", events
    print(client.get(f"/tasks/{task.id}").json()["result"])
"""


@pytest.mark.parametrize("version", ["0.40.0", "0.52.1"])
def test_other_versions_of_starlette(version: str, url: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if not request.config.option.all_engines:
        pytest.skip("installs other versions: only with --all-engines")
    python = environment(f"starlette=={version}", "httpx")
    done = subprocess.run([python, "-c", SCRIPT, url], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "HELLO\n"), done.stderr


def test_without_starlette_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['starlette'] = None; import dbtaskqueue.integrations.starlette"
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "pip install 'dbtaskqueue[fastapi]'" in done.stderr


def test_a_closed_queue_stays_closed(shop: AsyncTaskQueue) -> None:
    shop.sync.close()
    with pytest.raises(TaskQueueError, match="closed"), TestClient(Starlette(lifespan=shop.lifespan)):
        pass


def test_a_plain_queue_does_not_import_starlette(queue: TaskQueue) -> None:
    import sys

    code = "import sys, dbtaskqueue.aio; print('starlette' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"
