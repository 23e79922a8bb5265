"""Places on the dashboard's pages, by the names that OPERATORS promises to people who use a screen reader."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

from helpers import until
from playwright.sync_api import Locator, Page, expect

T = TypeVar("T")

PAGES = [
    *("/", "/tasks", "/queues", "/functions", "/schedules", "/quotas", "/overdue", "/workers"),
    *("/enqueue", "/operations", "/audit", "/doctor", "/settings"),
]
"""The paths that need no name and no number."""


def table(page: Page, name: str) -> Locator:
    """Return a table."""
    return page.get_by_role("table", name=name, exact=True)


def row(page: Page, name: str, text: str | re.Pattern[str]) -> Locator:
    """Return the rows of a table that have a text."""
    return table(page, name).get_by_role("row").filter(has_text=text)


def ids(page: Page, name: str = "Tasks") -> list[int]:
    """Return the ids of the tasks in a table, in its order, by their links."""
    links = table(page, name).locator("a[href]").evaluate_all("links => links.map(link => link.pathname)")
    found = [re.search(r"/tasks/(\d+)$", path) for path in links]
    return list(dict.fromkeys(int(each[1]) for each in found if each))


def progress(page: Page, id: int) -> Locator:
    """Return the bar of a task."""
    return page.get_by_role("progressbar", name=f"Progress of task {id}", exact=True).first


def share(bar: Locator) -> float | None:
    """Return how full a bar is, from 0 to 1; None if that is not known."""
    return bar.evaluate("bar => bar.hasAttribute('value') ? bar.value / bar.max : null")


def output(page: Page, id: int) -> Locator:
    """Return the output of a task."""
    return page.get_by_role("log", name=f"Output of task {id}", exact=True)


def dialog(page: Page, name: str | re.Pattern[str]) -> Locator:
    """Return an open dialog."""
    return page.get_by_role("dialog", name=name)


def confirm(page: Page, name: str | re.Pattern[str]) -> None:
    """Press the button of a dialog that acts."""
    box = dialog(page, name)
    expect(box).to_be_visible()
    box.get_by_role("button").filter(has_not_text=re.compile("^(Keep|Close|Go back)")).click()


def button(page: Page, name: str) -> Locator:
    """Return a button of the page."""
    return page.get_by_role("button", name=name, exact=True)


def focused(page: Page) -> str:
    """Return the accessible name, nearly, of what has the focus."""
    script = "() => { const e = document.activeElement; return e.getAttribute('aria-label') || e.innerText || e.name }"
    return str(page.evaluate(script)).strip()


def eventually(condition: Callable[[], T], what: str) -> T:
    """Wait until something is true on a page, and return it."""
    return until(condition, what=what)


def tab_to(page: Page, name: str, most: int = 200) -> None:
    """Press Tab until what has the focus has this name."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if focused(page) == name:
            return
    raise AssertionError(f"Tab never reached {name!r}")
