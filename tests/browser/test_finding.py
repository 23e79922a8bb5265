"""Finding: filters, the search box, paging, and hostile names. See notes/operators.md, §15."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from browser import orders
from browser.chromium import Visitor
from browser.places import button, eventually, ids, row, table
from browser.site import Site
from engines import execute
from playwright.sync_api import Page, expect

from dbtaskqueue import TaskQueue

LONG_ERROR = "e" * 65_000


@pytest.fixture
def tasks(site: Site) -> dict[str, int]:
    """Tasks that differ in what filters ask for, by name."""
    site.worker("--executor", "thread", queues="work")
    work, mail = site.lane("work"), site.lane("mail")
    found = {
        "done": work.enqueue(orders.quick.bind("a")),
        "abandoned": work.enqueue(orders.broken.bind("disk 50% full")),
        "pending": mail.enqueue({"path": "/srv/a b.mkv", "customer": {"id": 7}}, key="order-77", priority=9),
        "late": mail.enqueue({"path": "/srv/other.mkv"}, start_in=7200),
    }
    running = site.running("work")
    eventually(lambda: found["abandoned"].refresh().state == "abandoned", "the failure")
    eventually(lambda: found["done"].refresh().state == "done", "the end")
    return {name: task.id for name, task in found.items()} | {"running": running.id}


FILTERS = [
    ("queue=mail", ["pending", "late"]),
    ("state=abandoned", ["abandoned"]),
    ("state=done&state=abandoned", ["done", "abandoned"]),
    ("function=app.quick", ["done"]),
    ("function=app.*", ["done", "abandoned", "running"]),
    ("key=order-77", ["pending"]),
    ("priority=%3E%3D5", ["pending"]),
    ("attempt=%3E%3D1", ["done", "abandoned", "running"]),
    ("error=50%25", ["abandoned"]),
    ("payload=a%20b", ["pending"]),
    ("payload.customer.id=7", ["pending"]),
    ("created=1h&queue=mail", ["pending", "late"]),
    ("due=3h&queue=mail", None),
    ("overdue=true", []),
    ("suspended=true", []),
    ("state=abandoned&function=app.b*&error=disk", ["abandoned"]),
]


def test_19_and_20_filters_in_the_url_and_the_back_button(site: Site, page: Page, tasks: dict[str, int]) -> None:
    """19, 20: each filter alone, the same as the API, and again after a reload; three combined; back."""
    for query, names in FILTERS:
        page.goto(f"{site.address}/tasks?{query}")
        expected = [task["id"] for task in site.api(f"tasks?{query}")["tasks"]]
        if names is not None:
            assert sorted(expected) == sorted(tasks[name] for name in names), query
        assert ids(page) == expected if expected else not table(page, "Tasks").locator("a[href*='/tasks/']").count()
    page.reload()
    assert ids(page) == [tasks["abandoned"]]
    page.go_back()
    assert "suspended=true" in page.url
    page.go_forward()
    assert ids(page) == [tasks["abandoned"]]


def test_19_the_filter_form_writes_the_url(site: Site, page: Page, tasks: dict[str, int]) -> None:
    """19: by the form's textbox "Queue" and its group "State"."""
    page.goto(f"{site.address}/tasks")
    box = page.get_by_role("textbox", name="Queue", exact=True).or_(
        page.get_by_role("combobox", name="Queue", exact=True)
    )
    if not box.is_visible():
        page.get_by_text(re.compile("^(More filters|Filters?)")).first.click()
    box.fill("mail")
    box.press("Enter")
    page.wait_for_url(re.compile("queue=mail"))
    assert sorted(ids(page)) == sorted([tasks["pending"], tasks["late"]])


def test_21_words_in_the_search_box_become_filters(site: Site, page: Page, tasks: dict[str, int]) -> None:
    """21: the box rewrites itself into the URL, and each filter can be taken away."""
    page.goto(site.address)
    box = page.get_by_role("searchbox", name="Find tasks")
    box.fill('state:abandoned error:"50% full"')
    box.press("Enter")
    page.wait_for_url(re.compile("state=abandoned"))
    query = parse_qs(urlsplit(page.url).query)
    assert query["state"] == ["abandoned"]
    assert query["error"] == ["50% full"]
    assert ids(page) == [tasks["abandoned"]]
    page.get_by_role("link", name=re.compile("^(Remove|Without).*error", re.IGNORECASE)).click()
    page.wait_for_url(lambda url: "error=" not in url)
    assert ids(page) == [tasks["abandoned"]]


def test_21_a_number_in_the_search_box_opens_the_task(site: Site, page: Page, tasks: dict[str, int]) -> None:
    """An id is the shortest way to a task."""
    box = page.get_by_role("searchbox", name="Find tasks")
    box.fill(str(tasks["pending"]))
    box.press("Enter")
    expect(page.get_by_role("main")).to_contain_text("/srv/a b.mkv")


def test_22_a_search_that_finds_nothing_says_how_far_it_looked(site: Site, page: Page, visitor: Visitor) -> None:
    """22: a rare task among many: search on until it is there. (A million rows: by hand, see the benchmarks.)"""
    rare = site.queue.enqueue({"path": "needle"})
    for _ in range(6):
        site.queue.enqueue_many([{"n": number} for number in range(5_000)])
    page.goto(f"{site.address}/tasks?payload=needle")
    for _ in range(10):
        if ids(page):
            break
        expect(page.get_by_role("main")).to_contain_text(re.compile("searched|looked", re.IGNORECASE))
        page.get_by_role("link", name=re.compile("Search on|Older|Search further")).first.click()
    assert ids(page) == [rare.id]


def test_23_paging_shows_each_task_once(site: Site, page: Page) -> None:
    """23: 1,234 tasks, while others are added."""
    everything = [task.id for task in site.queue.enqueue_many(range(1234))]
    button(page, "Live updates").click()  # else the page itself would go on to the newer ones
    page.goto(f"{site.address}/tasks?limit=200")
    found: list[int] = []
    while True:
        found += ids(page)
        older = page.get_by_role("link", name="Older")
        if not older.count():
            break
        site.queue.enqueue("a newer one")
        with page.expect_navigation():
            older.click()
    assert found == everything[::-1]


HOSTILE = ["..", ".", "javascript:alert", "-"]
"""The worst that the rule for names of queues lets through."""


@pytest.mark.parametrize("name", HOSTILE)
def test_24_hostile_names_of_queues(site: Site, page: Page, name: str) -> None:
    """24: links lead to the queue and its tasks, whatever its name is."""
    task = site.lane(name).enqueue({"x": 1})
    page.goto(f"{site.address}/queues")
    row(page, "Queues", name).get_by_role("link", name=name, exact=True).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    page.goto(f"{site.address}/tasks?queue={quote(name, safe='')}")
    assert ids(page) == [task.id]


def test_24_hostile_names_of_functions(site: Site, page: Page) -> None:
    """24: a function that is called a/b?c#<i>."""
    call = orders.quick.bind(1)
    task = site.queue.enqueue(call)
    execute(site.url, "UPDATE dbtaskqueue_task SET function = %s", "a/b?c#<i>")
    page.goto(f"{site.address}/tasks?function={quote('a/b?c#<i>', safe='')}")
    assert ids(page) == [task.id]
    expect(table(page, "Tasks")).to_contain_text("a/b?c#<i>")


@pytest.mark.parametrize("query", ["colour=red", "state=broken", "priority=high", "limit=-1", "created=yesterdayish"])
def test_25_an_unknown_filter_is_named(site: Site, page: Page, visitor: Visitor, query: str) -> None:
    """25: 400 with the name of what is wrong."""
    visitor.expects("400")
    answer = page.goto(f"{site.address}/tasks?{query}")
    assert answer
    assert answer.status == 400
    expect(page.get_by_role("alert")).to_contain_text(query.partition("=")[0])


def test_26_large_payloads_and_errors_are_cut_and_whole_on_demand(site: Site, page: Page) -> None:
    """26: a payload of 900 KB, an error of 64 KiB."""
    lane: TaskQueue = site.lane("work")
    site.worker("--executor", "thread", queues="work")
    large = site.lane("mail").enqueue({"text": "p" * 900_000 + "THE END"})
    broken = lane.enqueue(orders.broken.bind(LONG_ERROR))
    eventually(lambda: broken.refresh().state == "abandoned", "the failure")
    page.goto(f"{site.address}/tasks")
    assert len(page.content()) < 100_000
    page.goto(f"{site.address}/tasks/{broken.id}")
    assert len(page.content()) < 250_000
    page.goto(f"{site.address}/tasks/{large.id}")
    assert "THE END" not in page.content()
    assert len(page.content()) < 250_000
    page.get_by_role("link", name=re.compile("whole|all of|full", re.IGNORECASE)).first.click()
    page.wait_for_load_state()
    assert "THE END" in page.content()
