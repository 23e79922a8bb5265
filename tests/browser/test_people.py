"""People: with a keyboard, a screen reader, a phone, large text, without JavaScript. See notes/operators.md, §15."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import orders
from browser.chromium import DESKTOP, PATIENCE, PHONE, Visitor
from browser.conftest import Visit
from browser.places import PAGES, button, dialog, eventually, focused, output, progress, row, tab_to, table
from browser.site import Site
from playwright.sync_api import Locator, Page, expect

WIDTHS = (320, 480, 640, 768, 960, 1100)
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = Axe().axe_script
MANY = [*PAGES, "/tasks/{running}", "/tasks/{abandoned}", "/queue?name=video", "/function?name=app.video.encode"]
MANY += ["/schedule?name=digest&queue=mail", "/worker/{worker}", "/operations/{operation}"]
MANY += ["/tasks/{running}/cancel", "/tasks?state=abandoned&function=app.*", "/tasks/9999999", "/login"]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, dict[str, int]]]:
    """A dashboard with something on each page, for tests that only look at it."""
    directory = tmp_path_factory.mktemp("world")
    site = Site(f"sqlite:///{directory}/taskqueue.sqlite", directory)
    try:
        yield site, _fill(site)
    finally:
        site.close()


def _fill(site: Site) -> dict[str, int]:
    site.worker()
    running = site.running("video").order("progress", 3, 10, "page 3 of 10").order("checkpoint", {"page": 3})
    running.order("step", "probe", {"width": 3840}).order("print", "frame=1 fps=12").obeyed()
    abandoned = site.lane("mail").enqueue(orders.broken.bind("no disk"))
    site.lane("mail").schedule("digest", {"to": "all"}, every=86_400)
    site.lane("a-queue-with-a-name-that-is-quite-long-since-somebody-wanted-it-so").enqueue({"x": "y" * 400})
    with site.queue.flow() as flow:
        first = flow.add(orders.quick.bind(1))
        flow.add(orders.quick.bind(first))
    waiting = site.lane("mail").enqueue(1, start_in=3600)
    eventually(lambda: abandoned.refresh().state == "abandoned", "the failure")
    site.start()
    site.lane("cancelled").enqueue(1)
    operation = site.api("operations", {"verb": "cancel", "where": {"queue": "cancelled"}})["id"]
    eventually(lambda: site.lane("cancelled").stats().cancelled, "the operation")
    [worker, *_] = site.queue.workers()
    return {
        "running": running.id,
        "abandoned": abandoned.id,
        "waiting": waiting.id,
        "operation": operation,
        "worker": worker.id,
    }


def tab(visitor: Visitor, site: Site) -> Page:
    """Open a tab that is signed in."""
    page = visitor.page()
    page.goto(site.link)
    return page


# -- axe and widths ------------------------------------------------------------------------------------


def violations(page: Page) -> list[str]:
    """Return what axe finds on the page."""
    page.evaluate(AXE)
    options = {"runOnly": RULES, "resultTypes": ["violations"]}
    found: dict[str, Any] = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{each['id']}: {each['help']}: {json.dumps([node['target'] for node in each['nodes']][:3])}"
        for each in found["violations"]
    ]


@pytest.mark.parametrize("path", MANY)
def test_54_and_57_axe_finds_nothing_and_no_page_scrolls_sideways(
    world: tuple[Site, dict[str, int]], visit: Visit, path: str
) -> None:
    """54, 57: on every page, light and dark, wide and narrow; 320 px is what 400 % zoom makes of 1280 px."""
    site, numbers = world
    visitor = visit()
    visitor.expects("404", "401")
    page = tab(visitor, site)
    page.goto(site.address + path.format(**numbers))
    found = []
    for scheme in ("light", "dark"):
        for size in (DESKTOP, PHONE):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
            page.set_viewport_size(size)  # type: ignore[arg-type]
            found += [f"{scheme} {size['width']}: {line}" for line in violations(page)]
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 640})
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            found.append(f"{wide} px wide at {width} px")
    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_54_axe_finds_nothing_in_an_open_dialog(world: tuple[Site, dict[str, int]], visit: Visit, scheme: str) -> None:
    """54: with the dialog of Cancel open."""
    site, numbers = world
    page = tab(visit(color_scheme=scheme), site)
    page.goto(f"{site.address}/tasks/{numbers['running']}")
    button(page, "Cancel").click()
    expect(dialog(page, f"Cancel task {numbers['running']}?")).to_be_visible()
    assert violations(page) == []


# -- keyboard --------------------------------------------------------------------------------------------


def test_55_cancel_by_keyboard_and_the_focus_returns(site: Site, page: Page) -> None:
    """55, 27: from the Overview to a cancelled task without a mouse."""
    site.worker()
    puppet = site.running()
    page.goto(f"{site.address}/tasks/{puppet.id}")
    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    box = dialog(page, f"Cancel task {puppet.id}?")
    expect(box).to_be_visible()
    assert box.evaluate("box => box.contains(document.activeElement)")
    page.keyboard.press("Escape")
    expect(box).to_be_hidden()
    assert focused(page) == "Cancel"
    page.keyboard.press("Enter")
    expect(box).to_be_visible()
    for _ in range(10):
        if re.match("Cancel", focused(page)):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    puppet.becomes("cancelled")
    expect(page.get_by_role("status")).not_to_be_empty()


def test_55_choose_and_retry_by_keyboard(site: Site, page: Page) -> None:
    """55, 33."""
    task = site.queue.enqueue(1)
    site.queue.cancel(task.id)
    page.goto(f"{site.address}/tasks?state=cancelled")
    box = page.get_by_role("checkbox", name=f"Choose task {task.id}", exact=True)
    box.focus()
    page.keyboard.press("Space")
    expect(box).to_be_checked()
    retry = button(page, "Retry")
    retry.focus()
    page.keyboard.press("Enter")
    expect(dialog(page, re.compile("^Retry"))).to_be_visible()
    for _ in range(10):
        if re.match("Retry", focused(page)):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    eventually(lambda: task.refresh().state == "pending", "the retry")


def test_the_first_tab_leads_past_the_navigation(world: tuple[Site, dict[str, int]], visit: Visit) -> None:
    """WCAG 2.4.1: "Skip to the content" is the first link."""
    site, _ = world
    page = tab(visit(), site)
    page.keyboard.press("Tab")
    assert "Skip" in focused(page)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('main') !== null")


def test_what_has_the_focus_is_seen(world: tuple[Site, dict[str, int]], visit: Visit) -> None:
    """WCAG 2.4.7: everything that Tab reaches on the Overview has an outline, or a shadow in its place."""
    site, _ = world
    page = tab(visit(), site)
    button(page, "Live updates").click()
    page.evaluate("document.activeElement.blur()")
    bare = []
    for _ in range(40):
        page.keyboard.press("Tab")
        style = page.evaluate(
            """() => { const e = document.activeElement, s = getComputedStyle(e);
                return e === document.body ? null : [e.outerHTML.slice(0, 80), s.outlineStyle, s.boxShadow] }"""
        )
        if style is None:
            break
        if style[1] == "none" and style[2] == "none":
            bare.append(style[0])
    assert bare == []


def test_56_shortcuts(site: Site, page: Page) -> None:
    """56: "/" goes to the search box; letters that are typed there do nothing else; all can be switched off."""
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    box = page.get_by_role("searchbox", name="Find tasks")
    expect(box).to_be_focused()
    page.keyboard.type("g t ? /")
    expect(box).to_have_value("g t ? /")
    page.goto(f"{site.address}/settings")
    page.get_by_role("group", name=re.compile("shortcuts")).get_by_role("radio", name="Off").check()
    button(page, "Save").click()
    page.goto(site.address)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    expect(box).not_to_be_focused()


# -- without JavaScript ------------------------------------------------------------------------------------


def test_58_without_javascript(site: Site, visit: Visit) -> None:
    """58: look, filter, cancel with a page that asks, and cancel all that match."""
    page = tab(visit(java_script_enabled=False), site)
    first, *_ = site.lane("mail").enqueue_many(range(5))
    site.lane("video").enqueue_many(range(2))
    page.goto(site.address)

    def says_five() -> bool:
        page.reload()
        found = row(page, "Queues", "mail")
        return found.count() > 0 and "5" in found.inner_text()

    eventually(says_five, "five tasks on the Overview")
    page.goto(f"{site.address}/tasks/{first.id}")
    button(page, "Cancel").click()
    expect(page.get_by_role("main")).to_contain_text(f"Cancel task {first.id}?")
    assert first.refresh().state == "pending"
    button(page, "Cancel task").or_(button(page, "Cancel")).first.click()
    assert first.refresh().state == "cancelled"
    expect(page.get_by_role("status")).not_to_be_empty()

    page.goto(f"{site.address}/tasks?queue=mail&state=pending")
    page.get_by_role("checkbox", name="Choose all that match").check()
    button(page, "Cancel").click()
    expect(page.get_by_role("main")).to_contain_text("queue")
    page.get_by_role("main").get_by_role("button", name=re.compile("^Cancel")).first.click()
    eventually(lambda: site.lane("mail").stats().cancelled == 5, "all are cancelled")
    assert site.lane("video").stats().pending == 2


def test_58_choose_some_without_javascript(site: Site, visit: Visit) -> None:
    """58: three of five."""
    page = tab(visit(java_script_enabled=False), site)
    tasks = site.lane("mail").enqueue_many(range(5))
    page.goto(f"{site.address}/tasks")
    for task in tasks[:3]:
        page.get_by_role("checkbox", name=f"Choose task {task.id}", exact=True).check()
    button(page, "Cancel").click()
    page.get_by_role("main").get_by_role("button", name=re.compile("^Cancel")).first.click()
    eventually(lambda: site.lane("mail").stats().cancelled == 3, "three are cancelled")


# -- colours, motion, names, times -----------------------------------------------------------------------


def test_59_forced_colours_keep_bars_and_states_visible(world: tuple[Site, dict[str, int]], visit: Visit) -> None:
    """59: a bar has a border or a system colour that differs from what is behind it."""
    site, numbers = world
    page = tab(visit(forced_colors="active"), site)
    bar = progress(page, numbers["running"])
    expect(bar).to_be_visible()
    shown = bar.evaluate(
        "e => { const s = getComputedStyle(e); return s.borderTopStyle !== 'none' || s.forcedColorAdjust !== 'auto'"
        " || s.appearance !== 'none' }"
    )
    assert shown
    expect(button(page, "Live updates")).to_be_visible()


def test_59_reduced_motion(world: tuple[Site, dict[str, int]], visit: Visit) -> None:
    """59: nothing is animated."""
    site, _ = world
    page = tab(visit(reduced_motion="reduce"), site)
    moving = page.evaluate(
        """() => [...document.querySelectorAll('*')].filter(e => ['', '::before', '::after'].some(part => {
            const s = getComputedStyle(e, part || null);
            return s.animationName !== 'none' && parseFloat(s.animationDuration) > 0.01
                && s.animationIterationCount === 'infinite'
        })).map(e => e.outerHTML.slice(0, 80))"""
    )
    assert moving == []


TABLES = [
    *[("/", name) for name in ("Queues", "Running tasks", "Latest failures", "Workers")],
    *[("/tasks", "Tasks"), ("/queues", "Queues"), ("/workers", "Workers"), ("/schedules", "Schedules")],
    *[("/tasks/{running}", "Attempts"), ("/tasks/{abandoned}", "Attempts")],
]


@pytest.mark.parametrize(("path", "name"), TABLES)
def test_60_tables_have_their_promised_names(
    world: tuple[Site, dict[str, int]], visit: Visit, path: str, name: str
) -> None:
    """60: and column headings."""
    site, numbers = world
    page = tab(visit(), site)
    page.goto(site.address + path.format(**numbers))
    expect(table(page, name).first).to_be_visible()
    assert table(page, name).first.get_by_role("columnheader").count() >= 2


def test_60_what_a_task_page_promises(world: tuple[Site, dict[str, int]], visit: Visit) -> None:
    """60: progress, output, timeline, buttons, one status."""
    site, numbers = world
    page, id = tab(visit(), site), numbers["running"]
    page.goto(f"{site.address}/tasks/{id}")
    places: list[Locator] = [
        progress(page, id),
        output(page, id),
        page.get_by_role("img", name=f"Timeline of task {id}"),
        button(page, "Cancel"),
        button(page, "Suspend"),
        page.get_by_role("navigation", name="Main"),
        page.get_by_role("searchbox", name="Find tasks"),
    ]
    for place in places:
        expect(place.first).to_be_visible(timeout=PATIENCE)
    copy = page.get_by_role("button", name="Enqueue a copy").or_(page.get_by_role("link", name="Enqueue a copy"))
    expect(copy).to_be_visible()
    assert page.get_by_role("status").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1


def test_60_what_the_list_promises(world: tuple[Site, dict[str, int]], visit: Visit) -> None:
    """60: checkboxes, a box for the queue, a choice of states."""
    site, numbers = world
    page = tab(visit(), site)
    page.goto(f"{site.address}/tasks")
    expect(page.get_by_role("checkbox", name=f"Choose task {numbers['running']}", exact=True)).to_be_visible()
    expect(page.get_by_role("checkbox", name="Choose all that match")).to_have_count(1)
    page.goto(f"{site.address}/enqueue")
    expect(page.get_by_role("textbox", name="Queue", exact=True)).to_be_visible()
    expect(page.get_by_role("textbox", name="Payload", exact=True)).to_be_visible()


def test_61_times_are_those_of_the_viewer(world: tuple[Site, dict[str, int]], visit: Visit) -> None:
    """61: a German clock in Tokyo; UTC in ``datetime`` and without JavaScript."""
    site, numbers = world
    due = site.queue.get(numbers["waiting"]).start_at
    assert due is not None
    path = f"{site.address}/tasks/{numbers['waiting']}"
    page = tab(visit(locale="de-DE", timezone_id="Asia/Tokyo"), site)
    page.goto(path)
    stamps = page.get_by_role("main").locator("time[datetime]")
    assert stamps.count()
    for value in stamps.evaluate_all("all => all.map(e => e.getAttribute('datetime'))"):
        assert re.search(r"(Z|\+00:00)$", value), value
    tokyo = f"{(due.hour + 9) % 24:02}:{due.minute:02}"
    everything = (
        "() => document.querySelector('main').innerText + [...document.querySelectorAll('time')].map(e => e.title)"
    )
    eventually(lambda: tokyo in page.evaluate(everything), f"{tokyo} on the page")
    plain = tab(visit(java_script_enabled=False, timezone_id="Asia/Tokyo"), site)
    plain.goto(path)
    assert "UTC" in plain.get_by_role("main").inner_text()
