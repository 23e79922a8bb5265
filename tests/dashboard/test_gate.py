"""The gate: each route, for each role and method, from the table of routes itself. Numbers are those of the threats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from dashboard.clients import HOST, client_of, form_headers, mounted, with_doors

from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard import Dashboard, User
from dbtaskqueue.dashboard.auth import ROLES
from dbtaskqueue.dashboard.gate import HEADERS
from dbtaskqueue.dashboard.routes import OPEN, Way, checked, table

WAYS = [way for way in table() if way.path != "/static/{hash}/{file}"]
WRITES = [way for way in WAYS if way.method == "POST" and way.role is not OPEN]
READS = [way for way in WAYS if way.method == "GET"]
NO_TASK = 999


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskQueue]:
    """An empty queue for all of these tests: what they test comes before the database."""
    with TaskQueue(f"sqlite:///{tmp_path_factory.mktemp('database')}/taskqueue.sqlite") as queue:
        yield queue


def named(way: Way) -> str:
    return f"{way.method} {way.path}"


def path_of(way: Way) -> str:
    return way.path.replace("{id}", str(NO_TASK))


def send(client: httpx.Client, way: Way, **headers: str) -> Any:
    content = {"json": {}} if way.is_api else {"data": {"x": "y"}}
    return client.request(way.method, path_of(way), headers=headers, **(content if way.method == "POST" else {}))


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_without_a_login_only_open_routes_answer(queue: TaskQueue, way: Way) -> None:
    answer = send(mounted(queue, None), way, origin=HOST)
    if way.role is OPEN:
        assert answer.status_code in (200, 404, 422)
    else:
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("way", [way for way in WAYS if way.role is not OPEN], ids=named)
def test_2_each_role_on_each_route(queue: TaskQueue, way: Way, role: str) -> None:
    """A role is checked before anything exists, so 403 and 404 tell nothing about tasks."""
    answer = send(mounted(queue, role), way, authorization="Bearer x")
    if ROLES.index(role) < ROLES.index(way.role):  # type: ignore[arg-type]
        assert answer.status_code == 403
        assert f"needs the role {way.role}" in answer.text
    else:
        assert answer.status_code not in (401, 403)
        assert answer.status_code < 500 or way.path == "/health/queues", "that needs a worker"


@pytest.mark.parametrize("way", [way for way in WRITES if way.path != "/logout"], ids=named)
def test_read_only_writes_nothing(queue: TaskQueue, way: Way) -> None:
    answer = send(mounted(queue, "admin", read_only=True), way, authorization="Bearer x")
    assert answer.status_code == 403
    assert "read-only" in answer.text


@pytest.mark.parametrize("way", WRITES, ids=named)
def test_3_each_write_needs_our_origin_and_our_token(queue: TaskQueue, way: Way) -> None:
    client = mounted(queue)
    ours = form_headers(client)
    other = mounted(queue)
    refused: list[dict[str, str]] = [
        {},
        {"origin": HOST},
        {"x-csrf-token": ours["x-csrf-token"]},
        ours | {"origin": "https://evil.example"},
        ours | {"origin": "null"},
        ours | {"origin": ""},
        ours | {"origin": "http://localhost"},
        ours | {"origin": f"{HOST}:81"},
        ours | {"origin": "http://127.0.0.1.evil.example"},
        ours | {"origin": "ftp://127.0.0.1"},
        ours | {"sec-fetch-site": "cross-site"},
        ours | {"sec-fetch-site": "same-site"},
        ours | {"x-csrf-token": ours["x-csrf-token"][:-2] + "xx"},
        ours | {"x-csrf-token": form_headers(other)["x-csrf-token"]},
        ours | {"x-csrf-token": "%"},
        {"origin": HOST, "authorization": "Basic c29tZW9uZTp4"},
    ]
    for headers in refused:
        assert send(client, way, **headers).status_code == 403, headers
    for headers in (ours, ours | {"sec-fetch-site": "same-origin"}, {"authorization": "Bearer x"}):
        assert send(client, way, **headers).status_code != 403, headers


def test_3_the_token_may_be_a_field_of_the_form(queue: TaskQueue) -> None:
    client = mounted(queue)
    ours = form_headers(client)
    fields = {"csrf": ours.pop("x-csrf-token")}
    assert client.post("/tasks/999/cancel", data=fields, headers=ours).status_code != 403
    assert client.post("/api/v1/tasks/999/cancel", json=fields, headers=ours).status_code != 403
    assert client.post("/api/v1/tasks/999/cancel", json={"csrf": [1]}, headers=ours).status_code == 403


def test_a_write_without_a_role_does_not_start() -> None:
    with pytest.raises(TypeError, match="POST /x writes: give it a role"):
        checked([Way("POST", "/x", None, lambda call: None)])  # type: ignore[arg-type, return-value]
    assert checked([Way("GET", "/x", None, lambda call: None)])[0].role == "look"  # type: ignore[arg-type, return-value]


def test_auth_has_no_default(queue: TaskQueue) -> None:
    with pytest.raises(TypeError, match="auth"):
        Dashboard(queue)  # type: ignore[call-arg]
    for wrong in (None, "alice", User("alice")):
        with pytest.raises(TypeError, match="auth must be a callable"):
            Dashboard(queue, auth=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [("alice", "admin"), "alice", True])
def test_what_auth_returns_is_checked(queue: TaskQueue, wrong: object) -> None:
    answer = with_auth(queue, lambda request: wrong).get("/api/v1/me")
    assert answer.status_code == 500
    assert "auth must return" not in answer.text  # it is in the log


def test_a_role_that_does_not_exist_lets_nobody_in(queue: TaskQueue) -> None:
    assert with_auth(queue, lambda request: User("alice", "root")).get("/api/v1/me").status_code == 500  # type: ignore[arg-type]


def test_auth_may_be_a_coroutine_function(queue: TaskQueue) -> None:
    async def auth(request: object) -> User:
        return User("alice", "operate")

    found = with_auth(queue, auth).get("/api/v1/me").json()
    assert (found["name"], found["role"]) == ("alice", "operate")


def with_auth(queue: TaskQueue, auth: Any) -> httpx.Client:
    return client_of(Dashboard(queue, auth=auth))


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/api/v1/me", 200),
        ("GET", "/health/live", 200),
        ("GET", "/login", 200),
        ("GET", "/nothing", 404),
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/tasks/999999999999999999999999999999999", 404),
        ("GET", "/" + "9" * 600, 404),
        ("GET", "/tasks/" + "9" * 5000, 404),
        ("DELETE", "/tasks", 405),
        ("PUT", "/api/v1/tasks", 405),
        ("OPTIONS", "/api/v1/tasks", 405),
        ("GET", "/?x=%ff", 400),
    ],
)
def test_9_headers_of_every_answer(queue: TaskQueue, method: str, path: str, status: int) -> None:
    answer = mounted(queue).request(method, path)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert answer.headers["server-timing"].startswith("db;dur=")
    if path.startswith("/api/") and status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert set(problem) == {"type", "title", "status", "detail"}
        assert problem["status"] == status


def test_9_headers_of_a_failure(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mounted(queue)
    monkeypatch.setattr(
        Dashboard, "queue", property(lambda self: {}["secret"], lambda self, queue: None), raising=False
    )
    answer = client.get("/api/v1/queues")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert {name: answer.headers[name] for name in HEADERS} == HEADERS


def test_23_static_files_are_kept_and_nothing_else_is(queue: TaskQueue) -> None:
    client = mounted(queue)
    [style] = [word for word in client.get("/").text.split('"') if word.endswith("/app.css")]
    answer = mounted(queue, None).get(style)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"].startswith("text/css")
    assert client.get("/static/0000000000000000/app.css").status_code == 404
    assert client.get(style.replace("app.css", "..%2fapp.py")).status_code == 404


def test_21_the_token_of_a_form_differs_in_each_answer(queue: TaskQueue) -> None:
    client = mounted(queue)
    tokens = {form_headers(client)["x-csrf-token"] for _ in range(5)}
    assert len(tokens) == 5


def test_head_is_get_without_a_body(queue: TaskQueue) -> None:
    client = with_doors(queue)
    assert client.head("/api/v1/me").status_code == 200
    assert client.head("/tasks/1/cancel").status_code != 405


# -- hosts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8484",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "2130706433",
        "[::2]",
        "",
    ],
)
def test_6_a_host_that_is_not_ours_is_refused(queue: TaskQueue, host: str) -> None:
    for client in (mounted(queue), with_doors(queue)):
        assert client.get("/health/live", headers={"host": host}).status_code == 421
        assert client.get("/api/v1/me", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.9.9.9:80", "[::1]:80", "localhost."])
def test_this_machine_is_always_allowed(queue: TaskQueue, host: str) -> None:
    assert mounted(queue).get("/api/v1/me", headers={"host": host}).status_code == 200


def test_allowed_hosts(queue: TaskQueue) -> None:
    client = mounted(queue, allowed_hosts=["Tasks.example.com"])
    assert client.get("/api/v1/me", headers={"host": "tasks.example.com:443"}).status_code == 200
    assert client.get("/api/v1/me", headers={"host": "x.tasks.example.com"}).status_code == 421
    assert mounted(queue, allowed_hosts=["*"]).get("/api/v1/me", headers={"host": "x.y"}).status_code == 200
    with pytest.raises(TypeError, match="allowed_hosts must be a collection"):
        mounted(queue, allowed_hosts="tasks.example.com")
    # a proxy that does not pass on the Host: the Origin is that of the public name
    ours = form_headers(client) | {"origin": "https://tasks.example.com"}
    assert client.post("/tasks/999/cancel", data={"x": "y"}, headers=ours).status_code != 403


# -- bodies ----------------------------------------------------------------------------------------


def post(client: httpx.Client, content: bytes | Any, kind: str, path: str = "/api/v1/tasks/999/cancel") -> int:
    headers = {"content-type": kind, "authorization": "Bearer x"}
    return int(client.post(path, content=content, headers=headers).status_code)


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x", "application/xml", ""])
def test_16_other_kinds_of_bodies(queue: TaskQueue, kind: str) -> None:
    client = mounted(queue)
    assert post(client, b"x=y", kind) == 415
    assert post(client, b"x=y", kind, "/tasks/999/cancel") == 415


def test_16_forms_are_not_for_programs(queue: TaskQueue) -> None:
    client = mounted(queue)
    assert post(client, b"x=y", "application/x-www-form-urlencoded") == 415
    headers = {"authorization": "Bearer x", "content-encoding": "gzip", "content-type": "application/json"}
    assert client.post("/api/v1/tasks/999/cancel", content=b"x", headers=headers).status_code == 415


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"1",
        b"null",
        b'{"x": NaN}',
        b'{"x": Infinity}',
        b"\xff",
        b'{"x": "\xff"}',
        b"[" * 100_000,
        b'{"x":' * 50_000,
        b'{"x": ' + b"9" * 10_000 + b"}",
    ],
)
def test_16_json_that_is_not_an_object(queue: TaskQueue, body: bytes) -> None:
    assert post(mounted(queue), body, "application/json") == 422


def test_16_large_bodies(queue: TaskQueue) -> None:
    client = mounted(queue)
    most = 2 * queue.store.max_payload
    assert post(client, b'{"x": "' + b"y" * most + b'"}', "application/json") == 413

    def pieces() -> Any:
        yield b'{"x": "'
        for _ in range(most // 65536 + 1):
            yield b"y" * 65536

    assert post(client, pieces(), "application/json") == 413  # without a content-length
    headers = {"authorization": "Bearer x", "content-length": "9" * 30, "content-type": "application/json"}
    assert client.post("/api/v1/tasks/999/cancel", content=b"x", headers=headers).status_code == 413
    many = "&".join(f"a{number}=1" for number in range(2000)).encode()
    assert post(client, many, "application/x-www-form-urlencoded", "/tasks/999/cancel") == 422


def test_answers_are_compressed_from_1_kib_on(queue: TaskQueue) -> None:
    for number in range(20):
        queue.lane(f"queue-{number}").pause()
    answer = mounted(queue).get("/api/v1/queues")
    assert answer.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in mounted(queue).get("/api/v1/me").headers
