"""Hostile questions and hostile data, on every route that answers. Numbers are those of the threats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from dashboard.clients import form_headers, mounted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard.routes import OPEN, table

READS = sorted(way.path for way in table() if way.method == "GET" and "{hash}" not in way.path)
WRITES = sorted(
    way.path for way in table() if way.method == "POST" and way.role is not OPEN and not way.path.endswith("/quota")
)
HOSTILE = [
    "..",
    ".",
    "a/b?c#<i>",
    "%2e%2e",
    '"><script>alert(1)</script>',
    "{{ 7*7 }}",
    "'; DROP TABLE x; --",
    "ü 你好 \u202e",
    "-",
    "%",
]
NAMES = ["part", "state", "queue", "name", "q", "sort", "limit", "cursor", "since", "step", "function", "id", "attempt"]
NAMES += ["after", "created", "ended", "runs", "error", "payload", "payload.a.b", "worker", "due", "next", "token"]
NAMES += ["theme", "keys", "whole", "max_wait", "min_workers", "overdue", "blocked", "verb", "copy", "before", "who"]
VALUES = [
    "",
    "1",
    "-1",
    "0",
    "9" * 30,
    "1.5",
    "1e999",
    "nan",
    "true",
    "failed",
    "2h",
    ">2h",
    "..",
    "a..b",
    "3-5",
    ">=3",
    "10m",
]
VALUES += [
    "9999999d",
    "2026-01-01..2027-01-01",
    "newest",
    "ids",
    "\x00",
    "\ud800",
    "%",
    "\\",
    "<b>",
    "null",
    "[",
    "0x1",
    "٣",
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskQueue]:
    """A database with hostile names in every place."""
    with TaskQueue(f"sqlite:///{tmp_path_factory.mktemp('database')}/taskqueue.sqlite") as queue:
        for name in HOSTILE:
            lane = queue.lane(name if name in ("..", ".", "-") else "default")
            call = lane.task(name=name.replace("\u202e", ""))(lambda x: None).bind(name)
            task = lane.enqueue(call, key=name, meta={name: name}, max_attempts=1)
            [held] = lane.fetch(1)
            held.start()
            held.fail(name)
            lane.enqueue(name, after=task, when="failed", start_in=3600)
            lane.schedule(name.replace("\u202e", ""), {"x": name}, every=3600)
        yield queue


def fill(path: str) -> str:
    return path.replace("{id}", "1")


@pytest.mark.one_engine("SQL is the same for all names")
@pytest.mark.parametrize("path", READS)
def test_hostile_names_in_the_query(hostile: TaskQueue, path: str) -> None:
    client = mounted(hostile)
    for name in map(quote, HOSTILE):
        for query in (f"name={name}&queue={name}", f"q={name}"):
            answer = client.get(f"{fill(path)}?{query}")
            assert answer.status_code < 500 or answer.status_code == 503, answer.text
            assert "<script>alert" not in answer.text or "json" in answer.headers["content-type"]
            if answer.status_code == 303:
                assert answer.headers["location"].startswith("/")
                assert not answer.headers["location"].startswith("//")


@pytest.mark.one_engine("SQL is the same for all names")
@pytest.mark.parametrize("path", WRITES)
def test_hostile_names_in_writes(queue: TaskQueue, path: str) -> None:
    client = mounted(queue)
    for name in HOSTILE:
        query = f"?name={quote(name)}&queue={quote(name)}"
        headers = {"authorization": "Bearer x"}
        answer = client.post(
            f"{fill(path)}{query}", json={"queue": name, "verb": name, "where": {name: name}}, headers=headers
        )
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        answer = client.post(f"{fill(path)}{query}", data={"queue": name, "verb": name}, headers=headers)
        assert answer.status_code < 500 or answer.status_code == 503, answer.text


PAIRS = st.lists(
    st.tuples(st.sampled_from(NAMES) | st.text(max_size=10), st.sampled_from(VALUES) | st.text(max_size=30)), max_size=6
)


@pytest.mark.one_engine("what a query string means is decided before SQL; the tests of find run on every engine")
@pytest.mark.parametrize("path", READS)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(pairs=PAIRS)
def test_14_any_query_string_is_answered(hostile: TaskQueue, path: str, pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{encode(name)}={encode(value)}" for name, value in pairs)
    answer = mounted(hostile).get(f"{fill(path)}?{query}")
    is_allowed = path in ("/health/queues", "/api/v1/doctor") and answer.status_code == 503
    assert is_allowed or answer.status_code in (200, 303, 304, 400, 404, 422), (query, answer.text)


def encode(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass"))


@pytest.mark.one_engine("what a query string means is decided before SQL")
@pytest.mark.parametrize("path", ["/tasks", "/api/v1/tasks", "/api/v1/me", "/"])
def test_14_queries_are_bounded(queue: TaskQueue, path: str) -> None:
    client = mounted(queue)
    many = "&".join("state=failed" for _ in range(31))
    for query in (many, "error=" + "x" * 2001, "x" * 9000, "error=%ff", "%ff=1", "a=b;c=d&a"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code == 400, query[:50]
    if path.endswith("tasks"):
        thirty = "&".join("state=failed" for _ in range(30))
        for query in (thirty, thirty + "&sort=newest&limit=50", "error=" + "x" * 1900, "error=" + quote("ü" * 1000)):
            assert client.get(f"{path}?{query}").status_code == 200, query[:50]


@pytest.mark.one_engine("what a query string means is decided before SQL")
def test_an_unknown_parameter_is_named(queue: TaskQueue) -> None:
    client = mounted(queue)
    for path in sorted(way.path for way in table() if way.is_api and way.method == "GET"):
        answer = client.get(f"{fill(path)}?nonsense=1")
        assert answer.status_code in (400, 404), path
        if answer.status_code == 400:
            assert "nonsense" in answer.json()["detail"]


# -- what is hidden --------------------------------------------------------------------------------

CANARY = "canary-7f3a"


def canaries(queue: TaskQueue) -> int:
    """Make a task whose payload, result and output have the canary; return its id."""
    task = queue.enqueue({"args": [CANARY], "kwargs": {"a": CANARY}, CANARY: 1})
    [held] = queue.fetch(1)
    held.start()
    held.finish({"result": CANARY})
    queue.enqueue([CANARY])
    [running] = queue.fetch(1)
    running.start()
    hidden_forever.append(running)
    queue.enqueue([CANARY], start_in=3600)
    return task.id


hidden_forever: list[Any] = []
"""Tasks that stay held until the end of the tests."""


@pytest.mark.one_engine("what is shown does not depend on the database")
def test_19_what_is_hidden_is_nowhere(queue: TaskQueue) -> None:
    id = canaries(queue)
    open_client = mounted(queue)
    assert CANARY in open_client.get(f"/api/v1/tasks/{id}").text
    assert CANARY in open_client.get(f"/tasks/{id}").text
    client = mounted(queue, hide=["payload", "result", "output"])
    for path in READS:
        for number in (id, id + 1, id + 2):
            for query in (
                "",
                "?part=1",
                "?whole=payload",
                "?whole=result",
                f"?copy={id}",
                "?state=running",
                "?name=default",
            ):
                answer = client.get(path.replace("{id}", str(number)) + query)
                assert CANARY not in answer.text, (path, query)


@pytest.mark.one_engine("what is shown does not depend on the database")
@pytest.mark.parametrize("query", ["payload=x", "payload.a=x", "text=x", "payload.a.b=1&state=done"])
def test_19_no_filter_asks_for_what_is_hidden(queue: TaskQueue, query: str) -> None:
    client = mounted(queue, hide=["payload"])
    for path in ("/tasks", "/api/v1/tasks"):
        assert client.get(f"{path}?{query}").status_code == 400
        assert mounted(queue).get(f"{path}?{query}").status_code == 200
    answer = client.post(
        "/api/v1/operations",
        json={"verb": "cancel", "where": dict(pair.split("=") for pair in query.split("&"))},
        headers={"authorization": "Bearer x"},
    )
    assert answer.status_code in (400, 422)


def test_a_task_as_the_command_line_prints_it(queue: TaskQueue) -> None:
    id = queue.enqueue({"a": [1, None, "ü"]}, key="k", meta={"m": 1}).id
    answer = mounted(queue).get(f"/api/v1/tasks/{id}")
    found = answer.json()
    assert answer.content.isascii()
    assert found["payload"] == {"a": [1, None, "ü"]}
    assert {"id", "queue", "state", "attempts", "usage", "runs_on", "parents", "children", "blocked"} <= set(found)
    listed = mounted(queue).get("/api/v1/tasks").json()
    assert set(listed) == {"tasks", "next", "scanned", "back_to", "complete"}
    assert {name: found[name] for name in listed["tasks"][0] if name != "left_out"} == {
        name: value for name, value in listed["tasks"][0].items() if name != "left_out"
    }
    queues = mounted(queue).get("/api/v1/queues").json()["queues"]
    stats = json.loads(json.dumps(queue.stats()._asdict()))
    assert {**queues[0], "oldest_due": 0, "workers": 0} == {"name": "default", **stats, "oldest_due": 0, "workers": 0}


def walked(client: httpx.Client, path: str) -> list[int]:
    found: list[int] = []
    cursor = None
    while True:
        page = client.get(path, params={"limit": 7, **({"cursor": cursor} if cursor else {})}).json()
        found += [task["id"] for task in page["tasks"]]
        cursor = page["next"]
        assert (cursor is None) == page["complete"]
        if cursor is None:
            return found


def test_a_cursor_walks_all_tasks(queue: TaskQueue) -> None:
    ids = [task.id for task in queue.enqueue_many(range(30))]
    assert walked(mounted(queue), "/api/v1/tasks") == ids[::-1]


@pytest.mark.one_engine("what is shown does not depend on the database")
def test_a_long_value_is_left_out_of_a_list(queue: TaskQueue) -> None:
    id = queue.enqueue("x" * 20_000).id
    [listed] = mounted(queue).get("/api/v1/tasks").json()["tasks"]
    assert (listed["payload"], listed["left_out"]) == (None, ["payload"])
    assert mounted(queue).get(f"/api/v1/tasks/{id}").json()["payload"] == "x" * 20_000


@pytest.mark.one_engine("the gate comes before the database")
def test_a_form_of_ours_needs_no_script(queue: TaskQueue) -> None:
    client = mounted(queue)
    headers = form_headers(client)
    token = headers.pop("x-csrf-token")
    assert client.post("/tasks/1/cancel", data={"csrf": token}, headers=headers).status_code != 403
