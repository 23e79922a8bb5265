"""Living: pages that stay open while databases, dashboards and networks come and go. See notes/operators.md, §15."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from browser.chromium import Visitor
from browser.conftest import MakeSite, Visit
from browser.places import button, eventually, row
from browser.site import Site
from playwright.sync_api import Page, Request, expect
from servers.postgresql import PostgresServer
from servers.requirements import must_be_ours

SERVED = re.compile(r"part=1")


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that the test stops."""
    must_be_ours("postgresql")
    with PostgresServer(durable=False) as server:
        yield server


def polls(page: Page) -> list[Request]:
    """Return a list that grows with each poll of the page."""
    found: list[Request] = []
    page.on("request", lambda request: found.append(request) if SERVED.search(request.url) else None)
    return found


def more_polls(found: list[Request], page: Page, count: int = 2) -> None:
    """Wait until the page has polled so many times more."""
    before = len(found)

    def has_more() -> bool:
        page.evaluate("0")  # lets Playwright read its events
        return len(found) >= before + count

    eventually(has_more, "more polls")


def test_48_a_database_that_restarts(server: PostgresServer, visit: Visit, make_site: MakeSite) -> None:
    """48: the page stays, greyed, with "as of", and comes back by itself."""
    visitor = visit()
    visitor.expects("503")
    site = make_site(server.url())
    site.lane("mail").enqueue(1)
    page = visitor.page()
    page.goto(site.start().link)
    expect(row(page, "Queues", "mail")).to_be_visible()
    server.stop("fast")
    expect(page.get_by_text(re.compile("as of")).first).to_be_visible()
    expect(row(page, "Queues", "mail")).to_be_visible()
    server.start()
    expect(page.get_by_text(re.compile("database (does not answer|is unavailable)"))).to_have_count(0)
    site.lane("later").enqueue(1)
    expect(row(page, "Queues", "later")).to_be_visible()


def test_49_a_dashboard_that_restarts(empty_site: Site, visit: Visit) -> None:
    """49: the page says that nobody answers, and goes on by itself. Behind a proxy, no session is lost."""
    site = empty_site.start("--user-header", "X-User", "--from", "127.0.0.0/8")
    visitor = visit(extra_http_headers={"X-User": "alice"})
    visitor.expects("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE")
    page = visitor.page()
    page.goto(site.address)
    site.lane("mail").enqueue(1)
    expect(row(page, "Queues", "mail")).to_be_visible()
    page.evaluate("window.same = true")
    port = site.port
    site.stop()
    expect(page.get_by_text(re.compile("dashboard does not answer", re.IGNORECASE))).to_be_visible()
    expect(row(page, "Queues", "mail")).to_be_visible()
    site.start("--port", str(port), "--user-header", "X-User", "--from", "127.0.0.0/8")
    site.lane("later").enqueue(1)
    expect(row(page, "Queues", "later")).to_be_visible()
    assert page.evaluate("window.same") is True


def test_49_a_session_that_has_ended_leads_to_the_sign_in_page(empty_site: Site, page_of_link: Page) -> None:
    """49, 68: the new process does not know the old session; a live page does not pretend to be live."""
    port = empty_site.port
    empty_site.stop()
    empty_site.start("--port", str(port))
    expect(page_of_link.get_by_text(re.compile("sign in", re.IGNORECASE)).first).to_be_visible()


@pytest.fixture
def page_of_link(empty_site: Site, visitor: Visitor) -> Page:
    """A tab on a dashboard that the test restarts."""
    visitor.expects("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET", "401", "ERR_INCOMPLETE")
    page = visitor.page()
    page.goto(empty_site.start().link)
    return page


def test_50_ten_tabs_are_live_at_once(site: Site, visitor: Visitor, page: Page) -> None:
    """50: each of them can be clicked."""
    pages = [visitor.page() for _ in range(10)]
    for each in pages:
        each.goto(site.address)
    site.lane("mail").enqueue(1)
    for each in pages:
        each.bring_to_front()
        expect(row(each, "Queues", "mail")).to_be_visible()
    for each in pages:
        each.bring_to_front()
        each.get_by_role("navigation", name="Main").get_by_role("link", name="Queues").click()
        expect(each.get_by_role("heading", level=1)).to_contain_text("Queues")


def test_51_a_hidden_page_asks_nothing(site: Site, page: Page) -> None:
    """51: and asks again when it is seen."""
    found = polls(page)
    more_polls(found, page)
    _set_hidden(page, True)
    site.lane("mail").enqueue(1)
    others = page.context.new_page()
    others.goto(site.address)
    of_others = polls(others)
    page.evaluate("0")
    before = len(found)
    more_polls(of_others, others, 3)
    assert len(found) - before <= 1
    assert row(page, "Queues", "mail").count() == 0
    _set_hidden(page, False)
    expect(row(page, "Queues", "mail")).to_be_visible()


def _set_hidden(page: Page, hidden: bool) -> None:
    """Make the page believe that its tab is hidden: a headless browser shows every tab."""
    page.evaluate(
        """hidden => {
            Object.defineProperty(document, 'hidden', {get: () => hidden, configurable: true});
            const state = hidden ? 'hidden' : 'visible';
            Object.defineProperty(document, 'visibilityState', {get: () => state, configurable: true});
            document.dispatchEvent(new Event('visibilitychange'));
        }""",
        hidden,
    )


def test_52_live_updates_can_be_switched_off(site: Site, page: Page) -> None:
    """52: nothing moves while the button is not pressed."""
    live = button(page, "Live updates")
    expect(live).to_have_attribute("aria-pressed", "true")
    live.click()
    expect(live).to_have_attribute("aria-pressed", "false")
    found = polls(page)
    site.lane("mail").enqueue(1)
    other = page.context.new_page()
    other.goto(site.address)
    of_other = polls(other)
    if other.get_by_role("button", name="Live updates").get_attribute("aria-pressed") == "false":
        other.get_by_role("button", name="Live updates").click()
    before = len(found)
    more_polls(of_other, other, 3)
    page.evaluate("0")
    assert len(found) - before <= 1
    assert row(page, "Queues", "mail").count() == 0
    page.bring_to_front()
    live.click()
    expect(row(page, "Queues", "mail")).to_be_visible()


def test_53_a_page_that_does_not_change_costs_a_304(site: Site, page: Page) -> None:
    """53: polls of a quiet page have no body. How many statements 50 viewers cost is in tests/dashboard."""
    found = polls(page)
    more_polls(found, page, 3)

    def is_quiet() -> bool:
        page.evaluate("0")
        answers = [request.response() for request in found[-2:] if request.failure is None]
        return any(answer is not None and answer.status == 304 for answer in answers)

    eventually(is_quiet, "an answer 304")
