"""The API that only reads: its shapes, its description, and what monitoring asks."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from dashboard.clients import client_of, form_headers, mounted, user_of, with_doors
from helpers import until
from prometheus_client.parser import text_string_to_metric_families

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue._formats.output import output_after
from dbtaskqueue.dashboard import Dashboard
from dbtaskqueue.dashboard.routes import table

pytestmark = pytest.mark.one_engine("SQL of what is read here is tested by the library")


def test_the_description_has_all_routes_and_their_parameters(queue: TaskQueue) -> None:
    queue.enqueue("x")
    client = mounted(queue)
    found = client.get("/api/v1/openapi.json").json()
    ways = {(way.path, way.method.lower()) for way in table() if way.is_api}
    assert {("/api/v1" + path, method) for path, some in found["paths"].items() for method in some} == ways
    for path, methods in found["paths"].items():
        for parameter in methods.get("get", {}).get("parameters", []):
            if parameter["in"] == "query":
                answer = client.get(f"/api/v1{path.replace('{id}', '1')}?{parameter['name']}=*")
                assert "unknown parameter" not in answer.text, (path, parameter)
    ids = [operation["operationId"] for methods in found["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids)


def test_the_description_knows_where_it_is_mounted(queue: TaskQueue) -> None:
    async def below(scope: object, receive: object, send: object) -> None:
        await dashboard({**scope, "root_path": "/ops"}, receive, send)  # type: ignore[dict-item, arg-type]

    dashboard = Dashboard(queue, auth=user_of)
    client = client_of(below, user="a look")  # type: ignore[arg-type]
    assert client.get("/ops/api/v1/openapi.json").json()["servers"] == [{"url": "/ops/api/v1"}]


def test_me(queue: TaskQueue) -> None:
    found = with_doors(queue).get("/api/v1/me").json()
    assert set(found) == {"name", "role", "csrf"}
    assert found["role"] == "admin"


def test_queues_and_workers_and_schedules(queue: TaskQueue) -> None:
    queue.enqueue("x", start_in=60)
    queue.lane("other").pause()
    queue.schedule("nightly", 1, cron="0 3 * * *")
    client = mounted(queue)
    names = {found["name"]: found for found in client.get("/api/v1/queues").json()["queues"]}
    assert names["default"]["pending"] == 1
    assert names["other"]["paused"] is True
    queue.enqueue("y", start_in=60)
    assert until(lambda: client.get("/api/v1/queues").json()["queues"][0]["pending"] == 2)
    assert client.get("/api/v1/schedules").json()["schedules"][0]["cron"] == "0 3 * * *"
    assert client.get("/api/v1/schedules?queue=other").json() == {"schedules": []}
    assert client.get("/api/v1/workers").json() == {"workers": []}
    assert client.get("/api/v1/overview").json()["totals"]["waiting"] == 2


def test_output_is_read_on_from_a_position(queue: TaskQueue) -> None:
    id = queue.enqueue("x").id
    client = mounted(queue)
    nothing = {"text": "", "position": 0, "left_out": 0, "ended": True}
    assert client.get(f"/api/v1/tasks/{id}/output").json() == nothing
    assert client.get(f"/api/v1/tasks/{id}/output?attempt=7").status_code == 404
    assert client.get("/api/v1/tasks/99/output").status_code == 404
    first = output_after("one ü\n", 0, ended=False)
    assert first == ("one ü\n", 7, 0)
    assert output_after("one ü\ntwo\ufffd", first.position, ended=False) == ("two", 10, 0)
    assert output_after("one ü\ntwo\n", 10, ended=True) == ("\n", 11, 0)
    assert output_after("one", 50, ended=True) == ("", 50, 0)


def test_history_and_functions(queue: TaskQueue) -> None:
    queue.enqueue("x")
    Worker(queue).run(lambda payload: payload, burst=True)
    client = mounted(queue)
    points = client.get("/api/v1/history?since=10m&step=1m").json()["history"]
    assert sum(point["done"] for point in points) == 1
    assert all(datetime.fromisoformat(point["at"]).second == 0 for point in points)
    [function] = client.get("/api/v1/functions").json()["functions"]
    assert (function["queue"], function["function"], function["count"]) == ("default", "(callback)", 1)
    for wrong in ("since=x", "step=0s", "since=400d&step=1s"):
        answer = client.get(f"/api/v1/history?{wrong}")
        assert answer.status_code == 400
        assert re.match("since|step", answer.json()["detail"])


def test_the_health_of_queues(queue: TaskQueue) -> None:
    client = mounted(queue, "look")
    answer = client.get("/health/queues")
    assert answer.status_code == 503
    assert answer.json()["problems"] == ["no live workers, at least 1 required"] or answer.json()["problems"]
    assert client.get("/health/queues?min_workers=0").json() == {"healthy": True, "problems": []}
    for wrong in ("max_wait=x", "min_workers=-1", "max_wait=9999999d"):
        assert client.get(f"/health/queues?{wrong}").status_code == 400
    assert mounted(queue, None).get("/health/queues").status_code == 401


def test_metrics(queue: TaskQueue) -> None:
    queue.enqueue("x")
    client = mounted(queue, "look")
    families = {family.name: family for family in text_string_to_metric_families(client.get("/metrics").text)}
    assert families["dbtaskqueue_up"].samples[0].value == 1
    answer = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert mounted(queue, None).get("/metrics").status_code == 401


def test_a_page_and_the_api_take_the_same_token(queue: TaskQueue) -> None:
    client = mounted(queue)
    id = queue.enqueue("x").id
    answer = client.post(f"/api/v1/tasks/{id}/cancel", headers=form_headers(client))
    assert answer.json()["state"] == "cancelled"
