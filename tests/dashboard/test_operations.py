"""Operations in real processes: killed in the middle, stopped, beside a worker."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from dashboard.clients import command, mounted, serve
from dashboard.forms import go
from engines import execute
from helpers import python_path, until

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.one_engine("SQL of operations is tested in tests/conformance")

MANY = 20_000


@pytest.fixture
def mail(queue: TaskQueue) -> TaskQueue:
    """Return a queue with many tasks."""
    lane = queue.lane("mail")
    lane.enqueue_many(range(MANY))
    return lane


def started(client: httpx.Client) -> int:
    """Start to cancel all tasks; return the id of the operation once its first step is done."""
    answer = client.post("/api/v1/operations", json={"verb": "cancel", "where": {"queue": "mail"}})
    assert answer.status_code == 202
    id: int = answer.json()["id"]
    until(lambda: read(client, id)["changed"], what="the first step")
    return id


def read(client: httpx.Client, id: int) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/v1/operations/{id}").json()
    return found


def test_another_dashboard_continues_after_a_kill(url: str, queue: TaskQueue, mail: TaskQueue) -> None:
    """36: each task is cancelled once, and counted once."""
    with serve(url) as first, first.client() as client:
        id = started(client)
        first.process.kill()
        first.process.wait(30)
    [record] = queue.store.operations(1)
    assert record.state == "running"
    assert 0 < record.changed < MANY
    execute(url, "UPDATE dbtaskqueue_operation SET step_at = 0")  # as if its runner had been silent for long
    with serve(url) as second, second.client() as client:
        found = until(lambda: (each := read(client, id))["state"] == "done" and each, what="the end")
    assert (found["changed"], found["refused"]) == (MANY, {})
    assert mail.stats().cancelled == MANY
    rows = queue.audit(verb="cancel", limit=1000)
    assert sum(row.count for row in rows) == MANY
    assert {row.who for row in rows} == {"start"}


def test_an_operation_stops_between_two_steps(url: str, queue: TaskQueue, mail: TaskQueue) -> None:
    """35: what it has changed stays changed, and nothing else is."""
    with serve(url) as served, served.client() as client:
        id = started(client)
        assert client.post(f"/api/v1/operations/{id}/stop").status_code == 200
        found = read(client, id)
        assert found["state"] == "stopped"
        assert 0 < found["changed"] < MANY
        assert client.post(f"/api/v1/operations/{id}/stop").status_code == 409
        assert found == read(client, id)
        assert served.stop() == 0
    assert mail.stats().cancelled == found["changed"]
    assert [row.outcome for row in queue.audit(verb="stop")] == ["it is stopped", "done"]


def test_sigterm_ends_a_dashboard_in_the_middle(url: str, queue: TaskQueue, mail: TaskQueue) -> None:
    with serve(url) as served, served.client() as client:
        started(client)
        assert served.stop() == 0
    [record] = queue.store.operations(1)
    assert record.state == "running"
    assert mail.stats().cancelled == record.changed


ONE_FUNCTION = """
from dbtaskqueue import TaskQueue

queue = TaskQueue(open=False)


@queue.task
def double(number):
    return 2 * number
"""


def test_37_a_worker_runs_what_a_form_has_enqueued(url: str, queue: TaskQueue, tmp_path: Path) -> None:
    (tmp_path / "one_function.py").write_text(ONE_FUNCTION)
    environment = {**os.environ, "PYTHONPATH": f"{python_path()}:{tmp_path}", "DBTASKQUEUE_URL": url}
    worker = subprocess.Popen(command("worker", "one_function:queue", "--executor", "thread"), env=environment)
    try:
        page = go(mounted(queue), "/enqueue").press("Enqueue", function="one_function.double", arguments="[21]")
        assert page.status == "Task 1 is enqueued."
        until(lambda: queue.get(1).state == "done", what="the end of the task")
        assert queue.get(1).result == 42
    finally:
        worker.kill()
        worker.wait()
