"""Somebody on call: the one task that hangs is found among many, understood and ended, with the keyboard alone."""

from __future__ import annotations

import re

from browser import orders
from browser.places import button, dialog, eventually, output, tab_to
from browser.site import Site
from engines import execute
from playwright.sync_api import Page, expect

HOURS = 3_600_000_000


def test_find_the_task_that_hangs_see_why_and_end_it(site: Site, page: Page) -> None:
    """It runs since yesterday; all others of its function took a minute. The Overview leads to it."""
    site.lane("mail").enqueue_many([{"n": number} for number in range(2000)], start_in=86_400)
    site.worker()
    quick = site.lane("video").enqueue_many([orders.quick.bind(number) for number in range(20)])
    eventually(lambda: all(task.refresh().state == "done" for task in quick), "the history")
    for other in range(3):
        site.running("video").order("progress", other + 1, 10, "fine").obeyed()
    stuck = site.running("video", function=orders.send).order("print", "connecting to smtp.example …").obeyed()
    execute(site.url, "UPDATE dbtaskqueue_task SET started_at = started_at - %s WHERE id = %s", 20 * HOURS, stuck.id)

    expect(page.get_by_role("table", name="Running tasks").get_by_role("row").nth(1)).to_contain_text("app.mail.send")
    page.keyboard.press("/")
    page.keyboard.type('runs:">1h" state:running')
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("runs="))
    link = page.get_by_role("table", name="Tasks").locator(f"a[href$='/tasks/{stuck.id}']").first
    expect(link).to_be_visible()
    assert page.get_by_role("table", name="Tasks").locator("tbody").get_by_role("row").count() == 1
    link.focus()
    page.keyboard.press("Enter")
    expect(output(page, stuck.id)).to_contain_text("connecting to smtp.example")
    tab_to(page, "Cancel")
    page.keyboard.press("Enter")
    expect(dialog(page, f"Cancel task {stuck.id}?")).to_be_visible()
    tab_to(page, "Cancel task", most=5)
    page.keyboard.press("Enter")
    stuck.becomes("cancelled")
    expect(page.get_by_role("main")).to_contain_text("cancelled")
    expect(button(page, "Enqueue a copy")).to_be_visible()
