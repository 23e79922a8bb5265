"""Rights: what a browser adds to the tests of the API in tests/dashboard. See notes/operators.md, §13 and §15."""

from __future__ import annotations

import functools
import hashlib
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from browser import orders
from browser.chromium import Visitor
from browser.conftest import Visit
from browser.places import PAGES, button, eventually
from browser.site import Site
from engines import execute
from playwright.sync_api import Page, expect

PAYLOADS = {
    "script": "<script>alert(1)</script>",
    "url": "javascript:alert(1)",
    "many": "\"><img src=x onerror=alert(1)> '><svg/onload=alert(1)> </title><script>alert(1)</script> </textarea>"
    "</pre><script>alert(1)</script> {{7*7}}${7*7}<%= 7*7 %> <iframe srcdoc='<script>parent.alert(1)</script>'> --><!--"
    "<img src=x onerror=alert(1)> </td></table></details></dialog><img src=x onerror=alert(1)>",
    "terminal": "\u202e\u2066evil\u2069 \x1b[31mred\x1b[0m \x07\x00",
}


@pytest.mark.parametrize("kind", PAYLOADS)
def test_68_hostile_texts_are_texts_on_every_page(site: Site, page: Page, visitor: Visitor, kind: str) -> None:
    """68 (threat 7): in queue, function, key, payload, error, output, message, schedule, host: no dialog, no error."""
    text = PAYLOADS[kind]
    name = text.replace("\x00", "")
    lane = site.lane("mail")
    lane.enqueue({name: name}, key=name[:250])
    site.worker(queues="work")
    site.lane("work").enqueue(orders.broken.bind(name))
    puppet = (
        site.running("work").order("print", text).order("progress", 1, 2, name).order("step", name[:100], name).obeyed()
    )
    eventually(lambda: site.lane("work").stats().abandoned, "the failure")
    execute(site.url, "UPDATE dbtaskqueue_task SET function = %s WHERE state = 'abandoned'", name)
    execute(site.url, "UPDATE dbtaskqueue_worker SET host = %s", name)
    [worker] = site.queue.workers()
    escaped = quote(name, safe="")
    visitor.expects("400", "404")
    for path in [
        *PAGES,
        *[f"/tasks/{task.id}" for queue in ("mail", "work") for task in site.lane(queue).tasks()],
        f"/worker/{worker.id}",
        *(f"/queue?name={escaped}", f"/function?name={escaped}", f"/schedule?name={escaped}&queue=mail"),
        *(f"/tasks?queue={escaped}", f"/tasks?q={quote(f'payload:{name!r}')}", f"/tasks?payload={escaped}"),
    ]:
        answer = page.goto(site.address + path)
        assert answer
        assert answer.status < 500, path
        assert page.evaluate("document.querySelectorAll('main img[src=x], main iframe, main script').length") == 0
    page.goto(f"{site.address}/tasks/{puppet.id}")
    if kind != "terminal":
        expect(page.get_by_role("log")).to_contain_text(text)


class Elsewhere(http.server.SimpleHTTPRequestHandler):
    """Another site, on this machine: its origin differs by the port."""

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":
            self.send_response(204)
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of another site, and the directory of its pages.

    A test asks for it before its page, which is then closed first: it would report the end of the server as an error.
    """
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    serve = functools.partial(Elsewhere, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://localhost:{server.server_port}", directory
        server.shutdown()
        thread.join()


def test_64_a_form_of_another_site_changes_nothing(
    elsewhere: tuple[str, Path], site: Site, page: Page, visitor: Visitor
) -> None:
    """64 (threat 3): also if the cookie goes along, as between two ports of localhost, which are one site."""
    visitor.expects("40[01369]")
    task = site.queue.enqueue(1)
    address, directory = elsewhere
    for origin in (site.address, site.address.replace("127.0.0.1", "localhost")):
        page.goto(site.link.replace(site.address, origin))
        action = f"{origin}/tasks/{task.id}/cancel"
        (directory / "index.html").write_text(f"<form method=post action='{action}'><button>Win</button></form>")
        page.goto(f"{address}/?{action}")  # or the browser could show the first form again
        with page.expect_navigation() as navigation:
            page.get_by_role("button", name="Win").click()
        assert navigation.value.status in (401, 403)  # 401: the cookie stays at home
        if "localhost" in origin:
            assert navigation.value.status == 403
    assert task.refresh().state == "pending"


def test_66_a_link_from_another_site_arrives_signed_in(elsewhere: tuple[str, Path], site: Site, page: Page) -> None:
    """66 (threat 5): as from an alert."""
    site.lane("mail").enqueue(1)
    address, directory = elsewhere
    (directory / "index.html").write_text(f"<a href='{site.address}/queues'>Alert</a>")
    page.goto(address)
    page.get_by_role("link", name="Alert").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Queues")


def test_70_no_other_site_can_frame_a_page(
    elsewhere: tuple[str, Path], site: Site, page: Page, visitor: Visitor
) -> None:
    """70 (threat 9): clickjacking, by another origin of the same site, to which the cookie goes along."""
    visitor.expects("frame-ancestors", "Framing", "ERR_BLOCKED")
    address, directory = elsewhere
    ours = site.address.replace("127.0.0.1", "localhost")
    page.goto(site.link.replace(site.address, ours))
    (directory / "index.html").write_text(f"<iframe src='{ours}/'></iframe>")
    page.goto(address)
    eventually(lambda: len(visitor.faults) > 0, "a blocked frame")
    assert not [
        frame for frame in page.frames if frame.url.startswith(site.address) and frame.get_by_role("main").count()
    ]


def test_72_the_token_of_the_link_does_not_stay_in_the_url(site: Site, page: Page, visitor: Visitor) -> None:
    """72 (threat 11): neither in the address bar, nor in the history, nor in Referer."""
    assert "token" not in page.url
    seen: list[str] = []
    visitor.context.on("request", lambda request: seen.append(request.headers.get("referer", "")))
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Queues").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Queues")
    page.go_back()
    assert "token" not in page.url
    assert not [url for url in seen if "token" in url]


def test_69_a_session_that_ends_while_a_page_is_live(site: Site, page: Page, visitor: Visitor) -> None:
    """69 (threat 8): the page leads to the sign-in page; no sign-in form is put into it."""
    visitor.expects("401")
    visitor.context.clear_cookies()
    expect(page.get_by_text(re.compile("sign in", re.IGNORECASE)).first).to_be_visible()
    expect(page.get_by_role("navigation", name="Main")).to_have_count(0)


def test_62_somebody_who_may_only_look_sees_no_buttons_that_act(empty_site: Site, visit: Visit, tmp_path: Path) -> None:
    """62 (threat 2): and gets 403 from pages that ask."""
    secret = "s" * 43
    (tmp_path / "tokens").write_text(f"look bob {hashlib.sha256(secret.encode()).hexdigest()}\n")
    site = empty_site.start("--token-file", str(tmp_path / "tokens"))
    task = site.queue.enqueue(1)
    visitor = visit()
    visitor.expects("403")
    page = visitor.page()
    page.goto(f"{site.address}/?token={secret}")
    for path in (f"/tasks/{task.id}", "/tasks", "/queue?name=default"):
        page.goto(site.address + path)
        for name in ("Cancel", "Retry", "Delete", "Pause queue default", "Enqueue a copy"):
            assert not [each for each in button(page, name).all() if each.is_visible() and each.is_enabled()], name
    answer = page.goto(f"{site.address}/tasks/{task.id}/cancel")
    assert answer
    assert answer.status == 403
    expect(page.get_by_role("alert")).to_contain_text("operate")


def test_67_a_host_name_that_is_not_ours(site: Site, visit: Visit) -> None:
    """67 (threat 6): DNS rebinding, as a browser sees it."""
    visitor = visit()
    visitor.expects("421")
    page = visitor.page()
    answer = page.request.get(f"{site.address}/", headers={"host": "evil.example"})
    assert answer.status == 421


def test_80_hidden_payloads_are_nowhere(empty_site: Site, visit: Visit) -> None:
    """80 (threat 19): not on pages, nor in the API."""
    canary = "canary-of-the-payload"
    site = empty_site.start("--hide", "payload,result,output")
    site.worker("--executor", "thread")
    task = site.queue.enqueue(orders.quick.bind(canary))
    eventually(lambda: task.refresh().state == "done", "the end")
    page = visit().page()
    page.goto(site.link)
    for path in ("/", "/tasks", f"/tasks/{task.id}", f"/api/v1/tasks/{task.id}", "/api/v1/tasks"):
        answer = page.request.get(site.address + path)
        assert answer.status == 200
        assert canary not in answer.text(), path


def test_a_password_signs_in_and_out(empty_site: Site, visit: Visit, tmp_path: Path) -> None:
    """OPERATORS: /login has fields name and password; wrong ones say so."""
    import subprocess
    import sys

    words = [sys.executable, "-m", "dbtaskqueue", "dashboard-user", "alice", "operate"]
    line = subprocess.run(words, input="correct horse\n", capture_output=True, text=True, check=True).stdout
    (tmp_path / "users").write_text(line)
    site = empty_site.start("--users", str(tmp_path / "users"))
    visitor = visit()
    visitor.expects("401")
    page = visitor.page()
    page.goto(f"{site.address}/queues")
    page.get_by_label("Name").fill("alice")
    page.get_by_label("Password").fill("wrong")
    button(page, "Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("wrong")
    page.get_by_label("Password").fill("correct horse")
    button(page, "Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Queues")
    button(page, "Sign out").click()
    expect(button(page, "Sign in")).to_be_visible()
