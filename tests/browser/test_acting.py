"""Acting: what buttons, dialogs and forms do to real tasks. See notes/operators.md, §15."""

from __future__ import annotations

import json
import re

import pytest
from browser import orders
from browser.chromium import Visitor
from browser.places import button, confirm, dialog, eventually, row
from browser.site import Site
from playwright.sync_api import Page, expect


def choose(page: Page, *chosen: int) -> None:
    """Tick the boxes of tasks."""
    for id in chosen:
        page.get_by_role("checkbox", name=f"Choose task {id}", exact=True).check()


def _confirm_if_asked(page: Page, verb: str) -> None:
    """Wait for what came of an action, and press the dialog's button first if there is one: not every action asks."""
    answer = page.get_by_role("status").or_(page.get_by_role("alert")).filter(has_text=re.compile(r"\w"))
    box = dialog(page, re.compile(verb))
    expect(box.or_(answer).first).to_be_visible()
    if box.is_visible():
        confirm(page, re.compile(verb))


def test_27_cancel_a_running_task(site: Site, page: Page) -> None:
    """27: a dialog asks, a status answers, the task ends, and the audit log has a line."""
    site.worker()
    puppet = site.running()
    page.goto(f"{site.address}/tasks/{puppet.id}")
    button(page, "Cancel").click()
    box = dialog(page, f"Cancel task {puppet.id}?")
    expect(box).to_be_visible()
    box.get_by_role("button", name=re.compile("^(Keep|Close|Go back)")).click()
    expect(box).to_be_hidden()
    assert puppet.task.refresh().state == "running"
    button(page, "Cancel").click()
    confirm(page, f"Cancel task {puppet.id}?")
    expect(page.get_by_role("status")).not_to_be_empty()
    puppet.becomes("cancelled")
    expect(page.get_by_role("main")).to_contain_text("cancelled")
    [row, *_] = site.api("audit")["audit"]
    assert (row["verb"], row["task"], row["via"]) == ("cancel", puppet.id, "dashboard")


def test_28_what_is_refused_says_why(site: Site, page: Page, visitor: Visitor) -> None:
    """28: cancel a task that has ended in the meantime."""
    visitor.expects("409")
    site.worker("--executor", "thread")
    puppet = site.running()
    page.goto(f"{site.address}/tasks/{puppet.id}")
    button(page, "Live updates").click()
    button(page, "Cancel").click()
    puppet.order("end", 1).becomes("done")
    confirm(page, f"Cancel task {puppet.id}?")
    expect(page.get_by_role("alert")).to_contain_text("done")


def test_29_retry(site: Site, page: Page) -> None:
    """29: an abandoned task is due again."""
    site.worker("--executor", "thread")
    puppet = site.running(max_attempts=1).order("fail", "no disk").becomes("abandoned")
    page.goto(f"{site.address}/tasks/{puppet.id}")
    button(page, "Retry").click()
    _confirm_if_asked(page, "Retry")
    expect(page.get_by_role("status")).not_to_be_empty()
    puppet.order("end", 17).becomes("done")
    expect(page.get_by_role("main")).to_contain_text("done")


def test_30_suspend_and_continue(site: Site, page: Page) -> None:
    """30: of a child process; the buttons change places."""
    site.worker()
    puppet = site.running()
    page.goto(f"{site.address}/tasks/{puppet.id}")
    button(page, "Suspend").click()
    _confirm_if_asked(page, "Suspend")
    eventually(lambda: puppet.task.refresh().suspended, "suspended")
    expect(button(page, "Continue")).to_be_visible()
    button(page, "Continue").click()
    eventually(lambda: not puppet.task.refresh().suspended, "continued")
    expect(button(page, "Suspend")).to_be_visible()


def test_30_a_task_in_a_thread_says_why_it_cannot_be_suspended(site: Site, page: Page, visitor: Visitor) -> None:
    """30: the reason, in an alert or beside the button."""
    visitor.expects("409")
    site.worker("--executor", "thread")
    puppet = site.running()
    page.goto(f"{site.address}/tasks/{puppet.id}")
    suspend = button(page, "Suspend")
    if suspend.count() and suspend.is_enabled():
        suspend.click()
        _confirm_if_asked(page, "Suspend")
        expect(page.get_by_role("alert")).to_contain_text("thread")
    puppet.order("end", 1).becomes("done")


def test_31_reschedule(site: Site, page: Page) -> None:
    """31: a task that is due in a day runs now, with another priority."""
    task = site.queue.enqueue(1, start_in=86_400)
    page.goto(f"{site.address}/tasks/{task.id}")
    button(page, "Reschedule").click()
    box = page.get_by_role("dialog", name=re.compile("Reschedule"))
    expect(box).to_be_visible()
    box.get_by_label(re.compile("Priority")).fill("7")
    box.get_by_label(re.compile("^(In|Start in|Due in)")).fill("0s")
    confirm(page, re.compile("Reschedule"))
    eventually(lambda: task.refresh().priority == 7, "the priority")
    assert [each.id for each in site.queue.fetch()] == [task.id]


def test_32_pause_and_resume_a_queue(site: Site, page: Page) -> None:
    """32: while it is paused, no worker claims."""
    site.worker("--executor", "thread")
    lane = site.lane("mail")
    lane.enqueue(orders.quick.bind(0))
    page.goto(f"{site.address}/queue?name=mail")
    button(page, "Pause queue mail").click()
    _confirm_if_asked(page, "Pause")
    eventually(lambda: lane.stats().paused, "paused")
    task = lane.enqueue(orders.quick.bind(1))
    expect(button(page, "Resume queue mail")).to_be_visible()
    assert task.refresh().state == "pending"
    button(page, "Resume queue mail").click()
    eventually(lambda: task.refresh().state == "done", "the task is done")
    expect(button(page, "Pause queue mail")).to_be_visible()


def test_33_choose_three_and_retry_them(site: Site, page: Page) -> None:
    """33: three of five; the others stay as they are."""
    tasks = [site.queue.enqueue({"n": number}) for number in range(5)]
    for task in tasks:
        site.queue.cancel(task.id)
    page.goto(f"{site.address}/tasks?state=cancelled")
    choose(page, tasks[0].id, tasks[2].id, tasks[4].id)
    button(page, "Retry").click()
    confirm(page, "Retry 3 tasks?")
    eventually(lambda: [task.refresh().state for task in tasks].count("pending") == 3, "three are pending")
    assert [task.refresh().state for task in tasks] == ["pending", "cancelled", "pending", "cancelled", "pending"]


@pytest.mark.parametrize("count", [3_000])
def test_34_all_that_match(site: Site, page: Page, count: int) -> None:
    """34: an operation with progress; what is enqueued in the meantime is not meant."""
    site.lane("other").enqueue_many(range(10))
    site.lane("mail").enqueue_many(range(count))
    page.goto(f"{site.address}/tasks?queue=mail")
    page.get_by_role("checkbox", name="Choose all that match").check()
    button(page, "Cancel").click()
    later = site.lane("mail").enqueue("later")
    confirm(page, re.compile("^Cancel"))
    page.wait_for_url(re.compile(r"/operations/\d+"))
    expect(page.get_by_role("main")).to_contain_text(re.compile("done", re.IGNORECASE))
    expect(page.get_by_role("main")).to_contain_text(re.compile(f"{count:,}|{count + 1:,}"))
    assert site.lane("mail").stats().cancelled in (count, count + 1)  # "later" may be older than the operation
    assert site.lane("other").stats().pending == 10
    assert later.refresh().state in ("pending", "cancelled")


def test_35_and_36_an_operation_survives_its_dashboard_and_stops(site: Site, page: Page, visitor: Visitor) -> None:
    """35, 36: killed in the middle, another dashboard goes on; Stop ends it."""
    visitor.expects("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "ERR_INCOMPLETE", "401")  # of the page that is open
    count = 20_000
    for _ in range(4):
        site.lane("mail").enqueue_many(range(count // 4))
    started = site.api("operations", {"verb": "cancel", "where": {"queue": "mail"}})
    eventually(lambda: site.lane("mail").stats().cancelled, "the first step")
    site.kill()
    site.start()
    page.goto(site.link)
    page.goto(f"{site.address}/operations/{started['id']}")
    expect(page.get_by_role("main")).to_contain_text("mail")
    stop = button(page, "Stop")
    if stop.count():
        stop.click()
        _confirm_if_asked(page, "Stop")
    eventually(lambda: site.api(f"operations/{started['id']}")["state"] in ("done", "stopped"), "the end")
    changed = site.api(f"operations/{started['id']}")["changed"]
    # counts of final states may be 10 s old
    eventually(lambda: changed == site.lane("mail").stats().cancelled, f"{changed} cancelled tasks")


def test_37_enqueue_by_form(site: Site, page: Page, visitor: Visitor) -> None:
    """37: bad JSON is named at its place and stores nothing; good JSON is a task that a worker runs."""
    visitor.expects("422")
    site.worker("--executor", "thread")
    page.goto(f"{site.address}/enqueue")
    page.get_by_role("textbox", name="Queue", exact=True).fill("mail")
    page.get_by_role("textbox", name="Payload", exact=True).fill('{"path": ')
    button(page, "Enqueue").click()
    expect(page.get_by_text(re.compile("column|line|JSON")).first).to_be_visible()
    assert site.queue.queues() == []
    expect(page.get_by_role("textbox", name="Payload", exact=True)).to_have_value('{"path": ')
    page.get_by_role("textbox", name="Payload", exact=True).fill('{"path": "/a.mkv"}')
    button(page, "Enqueue").click()
    page.wait_for_url(re.compile(r"/tasks(/\d+)?"))
    assert [task.payload for task in site.lane("mail").tasks()] == [{"path": "/a.mkv"}]


def test_37_enqueue_a_function_by_form(site: Site, page: Page) -> None:
    """37: with its arguments; the worker runs it."""
    site.worker("--executor", "thread")
    page.goto(f"{site.address}/enqueue")
    page.get_by_role("textbox", name="Queue", exact=True).fill("mail")
    page.get_by_label("Function").fill("app.quick")
    page.get_by_label(re.compile("^Arguments|^Positional|^args")).first.fill(json.dumps([17]))
    button(page, "Enqueue").click()
    page.wait_for_url(re.compile(r"/tasks/\d+"))
    expect(page.get_by_role("main")).to_contain_text("done")
    [task] = site.lane("mail").tasks()
    assert task.result == 17


def test_38_a_copy_of_a_task(site: Site, page: Page) -> None:
    """38: the form has everything that the task was enqueued with."""
    task = site.lane("mail").enqueue({"path": "/a.mkv"}, priority=5)
    page.goto(f"{site.address}/tasks/{task.id}")
    page.get_by_role("button", name="Enqueue a copy").or_(page.get_by_role("link", name="Enqueue a copy")).click()
    expect(page.get_by_role("textbox", name="Queue", exact=True)).to_have_value("mail")
    expect(page.get_by_role("textbox", name="Payload", exact=True)).to_have_value(re.compile("/a.mkv"))
    button(page, "Enqueue").click()
    page.wait_for_url(re.compile(r"/tasks/\d+"))
    copies = site.lane("mail").tasks()
    assert [(each.payload, each.priority) for each in copies] == [({"path": "/a.mkv"}, 5)] * 2


def test_39_a_key_that_is_taken(site: Site, page: Page, visitor: Visitor) -> None:
    """39: no second task; the page says so."""
    visitor.expects("409")
    task = site.lane("mail").enqueue(1, key="once")
    page.goto(f"{site.address}/enqueue")
    page.get_by_role("textbox", name="Queue", exact=True).fill("mail")
    page.get_by_role("textbox", name="Payload", exact=True).fill("2")
    key = page.get_by_label(re.compile("^Key"))
    if not key.is_visible():
        page.get_by_text(re.compile("^(More|Options)")).first.click()
    key.fill("once")
    button(page, "Enqueue").click()
    expect(page.get_by_role("main")).to_contain_text(str(task.id))
    assert [each.payload for each in site.lane("mail").tasks()] == [1]


def test_40_purge_asks_for_the_name_of_the_queue(site: Site, page: Page, visitor: Visitor) -> None:
    """40: nothing is removed before the name is right."""
    visitor.expects("422")
    lane = site.lane("mail")
    lane.enqueue_many(range(3))
    page.goto(f"{site.address}/queue?name=mail")
    purge = page.get_by_role("button", name=re.compile("^Purge")).first
    if not purge.is_visible():
        page.get_by_text(re.compile("Danger|More", re.IGNORECASE)).first.click()
    purge.click()
    box = dialog(page, re.compile("Purge"))
    expect(box).to_be_visible()
    assert lane.stats().pending == 3
    box.get_by_role("textbox").fill("mail")
    confirm(page, re.compile("Purge"))
    eventually(lambda: lane.stats().pending == 0, "the queue is empty")


def test_a_schedule_runs_now_pauses_and_resumes(site: Site, page: Page) -> None:
    """OPERATORS: buttons "Run NAME now", pause, resume."""
    lane = site.lane("mail")
    lane.schedule("digest", {"to": "all"}, every=86_400)
    page.goto(f"{site.address}/schedule?name=digest&queue=mail")
    button(page, "Run digest now").click()
    _confirm_if_asked(page, "Run")
    eventually(lambda: lane.stats().pending, "a task")
    page.goto(f"{site.address}/schedules")
    expect(row(page, "Schedules", "digest")).to_be_visible()
