"""The pages that look: what they show, that hostile texts stay texts, and what they ask of the database."""

from __future__ import annotations

import html.parser
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from dashboard.clients import mounted

from dbtaskqueue import StoreUnavailable, TaskQueue
from dbtaskqueue import dashboard as package
from dbtaskqueue._store.contract import Claim, End, NewTask, Note, ScheduleRecord, WorkerRecord
from dbtaskqueue._system import clock
from dbtaskqueue.dashboard import looks

pytestmark = pytest.mark.one_engine

PAGES = [
    *("/", "/tasks", "/queues", "/queue?name=default", "/functions", "/function?name=f", "/schedules", "/quotas"),
    *("/overdue", "/workers", "/doctor", "/settings", "/tasks/1"),
]
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href=javascript:alert(1)><text>x</text></a></svg>",
    "<math href=javascript:alert(1)>x</math>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<object data=javascript:alert(1)></object>",
    "<embed src=javascript:alert(1)>",
    "<body onload=alert(1)>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)></video>",
    "<audio src=x onerror=alert(1)>",
    "<marquee onstart=alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<form action=javascript:alert(1)><button>x</button></form>",
    "<button formaction=javascript:alert(1)>x</button>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    "<style>@import '//evil.example/x.css';</style>",
    "<template><script>alert(1)</script></template>",
    '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    "<textarea></textarea><script>alert(1)</script>",
    "<title></title><script>alert(1)</script>",
    "<!--><script>alert(1)</script>-->",
    "<![CDATA[><script>alert(1)</script>]]>",
    '"><script>alert(1)</script>',
    "'><script>alert(1)</script>",
    '" onmouseover=alert(1) x="',
    "' onmouseover=alert(1) x='",
    "` onmouseover=alert(1) x=`",
    "{{ 7 * 7 }}{% raw %}",
    "${alert(1)}#{alert(1)}",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "javascript:alert(1)//",
    "--><svg/onload=alert(1)>",
]
"""Texts that become code where a page forgets to escape: in an element, an attribute, a comment, or a URL."""


class Parsed(html.parser.HTMLParser):
    """What is in a page: its elements with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def client(queue: TaskQueue) -> Iterator[httpx.Client]:
    with mounted(queue) as client:
        yield client


def statements(answer: httpx.Response) -> int:
    match = re.fullmatch(r'db;dur=[\d.]+;desc="(\d+)"', answer.headers["server-timing"])
    assert match is not None
    return int(match[1])


@pytest.mark.parametrize("path", PAGES)
def test_each_page_shows_an_empty_and_a_busy_database(queue: TaskQueue, client: httpx.Client, path: str) -> None:
    if path != "/tasks/1":
        assert client.get(path).status_code == 200
    queue.enqueue({"n": 1})
    [task] = queue.fetch(timeout=10)
    task.start()
    client.close()
    with mounted(queue) as again:
        answer = again.get(path)
        assert answer.status_code == 200
        assert Parsed(answer.text).elements


def seed_hostile(queue: TaskQueue, text: str) -> int:
    """Store a task with the text in each of its fields, a schedule and a worker; return the id of the task."""
    store, now = queue.store, clock.now()
    new = NewTask("default", 0, now, None, now, text, text, None, json.dumps({"args": [text], "kwargs": {text: text}}))
    id = store.enqueue([[new]]).ids[0]
    place = WorkerRecord(
        0, text, 1, None, None, None, 30, 0, now, None, "thread", json.dumps([text]), json.dumps([text])
    )
    worker = store.register(place._replace(version=text))

    [claimed] = store.exchange(worker, claim=Claim(["default"], 1, now, start=True)).claimed
    assert claimed.id == id
    store.save(id, claimed.token, "step:" + text, json.dumps(text))
    notes = [
        Note(id, claimed.token, "progress", json.dumps([1, 2, text, None]), now),
        Note(id, claimed.token, "output", text, now),
    ]
    store.exchange(worker, notes=notes)
    end = End("fail", id, claimed.token, now, final=True, error=f"{text}\nsecond line", error_type=text)
    store.exchange(worker, ends=[end])
    target = json.dumps({"queue": "default", "payload": "{}", "function": text})
    schedule = ScheduleRecord("default", text[:100], target, "0 0 * * *", None, "UTC", "skip", "latest", 86400, 0)
    store.declare(
        [schedule],
        now,
        lambda before, after, time: __import__("dbtaskqueue._store.contract", fromlist=["Settled"]).Settled(time),
    )
    return id


def check_harmless(page: str, texts: list[str]) -> None:
    """Check that none of the texts has become an element or an attribute, and that all of them can be read."""
    parsed = Parsed(page)
    for tag, attributes in parsed.elements:
        assert tag not in ("iframe", "object", "embed", "base", "style", "img", "video", "audio", "math", "marquee")
        assert tag != "script" or set(attributes) == {"src", "defer"}
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "srcdoc", "formaction")]
        for name in ("href", "src", "action"):
            assert re.match(r"(/|#|\?|$)", attributes.get(name, "")), attributes
            assert not attributes.get(name, "").startswith("//")
    squeezed = " ".join(parsed.text.split())
    for text in texts:
        assert " ".join(text.split()) in squeezed, text


def test_hostile_texts_are_shown_as_texts(queue: TaskQueue) -> None:
    """40 texts in every field, on every page that shows them."""
    ids = {seed_hostile(queue, text): text for text in HOSTILE}
    with mounted(queue) as client:
        for path in ("/", "/tasks?limit=200", "/functions", "/schedules", "/workers", "/queue?name=default", "/doctor"):
            answer = client.get(path)
            assert answer.status_code == 200, path
            check_harmless(answer.text, HOSTILE if path.startswith(("/tasks", "/workers")) else [])
        for id, text in ids.items():
            answer = client.get(f"/tasks/{id}")
            assert answer.status_code == 200
            check_harmless(answer.text, [text])
            assert Parsed(answer.text).text.count(text) >= 5  # function, error, output, step, payload
            for path in ("/function", "/tasks", "/schedule") if id % 4 == 0 else ():
                query = {"/tasks": {"function": text, "error": text}, "/function": {"name": text}}.get(
                    path, {"queue": "default", "name": text[:100]}
                )
                answer = client.get(path, params=query)
                assert answer.status_code == 200, (path, text)
                check_harmless(answer.text, [text])
        for worker in queue.store.workers():
            check_harmless(client.get(f"/worker/{worker.id}").text, [worker.host])


def test_control_characters_and_directions_are_written_out(queue: TaskQueue, client: httpx.Client) -> None:
    queue.enqueue({"name": "evil\u202egpj.exe\x1b[2J"})
    page = client.get("/tasks/1").text
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "\\u202e" in page


def test_no_template_turns_escaping_off() -> None:
    root = Path(package.__file__).parent
    for path in (root / "templates").glob("*.html"):
        text = path.read_text()
        assert "|safe" not in text.replace(" ", ""), path
        assert "autoescape" not in text, path
        assert " style=" not in text, path
        assert not re.search(r"\son[a-z]+=", text), path
        assert "<script>" not in text, path
    for path in root.rglob("*.py"):
        for found in re.findall(r"Markup\((.)", path.read_text()):
            assert found in "'\"", f"{path}: Markup of something that is not a constant"


def test_the_static_files_are_small() -> None:
    static = Path(package.__file__).parent / "static"
    sizes = {path.name: path.stat().st_size for path in static.iterdir()}
    assert sizes["app.css"] <= 20_480
    assert sizes["app.js"] <= 15_000
    assert sum(sizes.values()) <= 60_000


# -- live updates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/tasks", "/tasks/1", "/queues", "/queue?name=default", "/workers", "/overdue"])
def test_a_part_is_the_main_element_and_304_while_nothing_changes(queue: TaskQueue, path: str) -> None:
    queue.enqueue(1, start_in=3600)
    with mounted(queue) as client:
        client.get(path)
        part = client.get(path, params={**dict(httpx.QueryParams(path.partition("?")[2])), "part": "1"})
        assert part.status_code == 200
        assert part.text.strip().startswith("<main")
        assert "<html" not in part.text
        etag = part.headers["etag"]
        assert f'data-etag="{etag.strip(chr(34))}"' in part.text
        url = f"{path}{'&' if '?' in path else '?'}part=1"
        for _ in range(20):  # what a thread counts may still change it
            again = client.get(url, headers={"if-none-match": etag})
            if again.status_code == 304:
                break
            etag = again.headers["etag"]
        assert again.status_code == 304
        assert again.content == b""


def test_a_change_has_another_etag(queue: TaskQueue, client: httpx.Client) -> None:
    queue.enqueue(1, start_in=3600)
    first = client.get("/tasks/1")
    queue.cancel(1)
    dashboard_looks(client).forget_all()
    second = client.get("/tasks/1")
    assert first.headers["etag"] != second.headers["etag"]
    assert "cancelled" in second.text


def dashboard_looks(client: httpx.Client) -> Any:
    return client._transport._transport.app.looks  # type: ignore[attr-defined]


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the clock of looks: each is read once."""
    monkeypatch.setattr(looks, "time", SimpleNamespace(monotonic=lambda: 1000.0))


def test_what_is_asked_of_the_database_is_bounded(queue: TaskQueue, still: None) -> None:
    """A page asks little at first, and nothing that another viewer has just asked."""
    for name in ("a", "b", "c", "d", "e"):
        queue.lane(name).enqueue_many(range(20))
        queue.lane(name).enqueue(0, start_in=60).cancel()
    for path in ("/", "/tasks", "/tasks/1", "/queues", "/queue?name=a", "/workers", "/overdue"):
        with mounted(queue) as client:
            first, second = client.get(path), client.get(path)
        assert first.status_code == 200
        assert statements(first) <= 8, path
        assert statements(second) <= 1, path  # whether queues are paused, once they are counted


def test_many_viewers_ask_no_more_than_one(queue: TaskQueue, still: None) -> None:
    queue.enqueue(1)
    with mounted(queue) as client:
        client.get("/")
        assert sum(statements(client.get("/")) for _ in range(10)) <= 1


# -- a database that is away -----------------------------------------------------------------------


def test_a_database_that_is_away_shows_the_last_look(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.enqueue({"name": "known"}, start_in=3600)
    with mounted(queue) as client:
        assert client.get("/tasks/1").status_code == 200

        def away(*_: object, **__: object) -> Any:
            raise StoreUnavailable("the server does not answer")

        shared = dashboard_looks(client)
        with monkeypatch.context() as patch:
            for verb in ("get", "workers", "longest_running", "queues", "schedules"):
                patch.setattr(type(queue.store), verb, away)
            shared.forget_all()
            answer = client.get("/tasks/1")
            assert answer.status_code == 200
            assert "as of" in answer.text
            assert 'class="old"' in answer.text
            assert "known" in answer.text
            assert client.get("/tasks/2").status_code == 503
        shared.forget_all()
        answer = client.get("/tasks/1")
        assert "as of" not in answer.text


# -- searching -------------------------------------------------------------------------------------


def test_the_search_box_leads_to_a_task_or_to_filters(queue: TaskQueue, client: httpx.Client) -> None:
    queue.enqueue(1)
    assert client.get("/tasks", params={"q": " 1 "}).headers["location"] == "/tasks/1"
    found = client.get("/tasks", params={"q": 'state:failed error:"timed out"'}).headers["location"]
    assert dict(httpx.URL(found).params) == {"state": "failed", "error": "timed out"}
    page = client.get(found).text
    assert "No task matches" in page
    assert "Remove state: failed" in page


@pytest.mark.parametrize(
    "query", ["bogus=1", "state=unknown", "limit=0", "limit=x", "sort=up", "id=x", "q=%22", "part=2"]
)
def test_a_bad_query_is_named(client: httpx.Client, query: str) -> None:
    answer = client.get(f"/tasks?{query}")
    assert answer.status_code == 400
    assert query.split("=")[0] in answer.text or "quote" in answer.text


def test_the_cursor_walks_through_all_tasks(queue: TaskQueue, client: httpx.Client) -> None:
    queue.enqueue_many(range(120))
    seen: list[int] = []
    url = "/tasks"
    while url:
        page = client.get(url).text
        seen += [int(id) for id in re.findall(r'id="task-(\d+)"', page)]
        match = re.search(r'rel="next" href="([^"]+)"', page)
        url = "" if match is None else html.unescape(match[1])
    assert seen == list(range(120, 0, -1))


def test_settings_are_kept_in_cookies(client: httpx.Client) -> None:
    answer = client.get("/settings", params={"theme": "dark", "keys": "off"})
    assert answer.status_code == 303
    page = client.get("/settings").text
    assert 'data-theme="dark"' in page
    assert 'data-keys="off"' in page


def test_who_may_only_look_gets_no_buttons_that_act(queue: TaskQueue) -> None:
    queue.enqueue(1, start_in=60)
    with mounted(queue, role="look") as client:
        for path in ("/tasks/1", "/queues", "/tasks", "/queue?name=default"):
            page = client.get(path).text
            assert 'method="post"' not in page, path
            assert "Cancel<" not in page, path
