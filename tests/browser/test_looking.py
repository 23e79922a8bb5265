"""Looking: what the pages say about real tasks and real workers, while they change. See notes/operators.md, §15."""

from __future__ import annotations

import re
import signal

from browser import orders
from browser.places import eventually, output, progress, row, share, table
from browser.site import Site
from playwright.sync_api import Page, expect

from dbtaskqueue import Progress

NONE = Progress(0)


def test_1_the_overview_names_queues_and_their_counts(site: Site, page: Page) -> None:
    """1: start, follow the link, and read the same numbers as the API says."""
    site.lane("mail").enqueue_many(range(3))
    site.lane("video").enqueue_many(range(2), start_in=3600)
    page.goto(site.address)
    assert "token" not in page.url
    for queue, count in (("mail", 3), ("video", 2)):
        expect(row(page, "Queues", queue)).to_contain_text(str(count))
        assert next(each for each in site.api("queues")["queues"] if each["name"] == queue)["pending"] == count


def test_2_and_3_a_bar_moves_back_and_forth_without_a_reload(site: Site, page: Page) -> None:
    """2, 3: a running task's bar moves; it may go back, and be without a total."""
    site.worker()
    puppet = site.running().order("progress", 1, 4, "first").obeyed()
    bar = progress(page, puppet.id)
    eventually(lambda: bar.count() and share(bar) == 0.25, "a quarter")
    expect(row(page, "Running tasks", "app.video.encode")).to_contain_text("first")
    page.evaluate("window.same = true")
    puppet.order("progress", 3, 4, "second")
    eventually(lambda: share(bar) == 0.75, "three quarters")
    expect(row(page, "Running tasks", "app.video.encode")).to_contain_text("second")
    puppet.order("progress", 2, 4, "third")
    eventually(lambda: share(bar) == 0.5, "back to a half")
    puppet.order("progress", 1234, None, "endless")
    expect(row(page, "Running tasks", "endless")).to_contain_text(re.compile("1,?234"))
    eventually(lambda: bar.count() == 0 or share(bar) is None, "a bar without an end")
    assert page.evaluate("window.same") is True


def test_2_how_long_a_task_will_take_is_said_beside_its_bar(site: Site, page: Page) -> None:
    """2: the ETA."""
    site.worker()
    puppet = site.running()
    for done in range(1, 6):
        puppet.order("progress", done, 1000).obeyed()
        eventually(lambda done=done: (site.queue.get(puppet.id).progress or NONE).done == done, "the progress")
    page.goto(f"{site.address}/tasks/{puppet.id}")
    expect(page.get_by_role("main")).to_contain_text(re.compile(r"left|to go|remaining|ETA"))


def test_4_open_a_task_from_the_table_by_keyboard(site: Site, page: Page) -> None:
    """4."""
    task = site.queue.enqueue({"path": "/srv/in/17.mkv"})
    page.goto(f"{site.address}/tasks")
    link = table(page, "Tasks").locator(f"a[href$='/tasks/{task.id}']").first
    link.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(str(task.id))
    expect(page.get_by_role("main")).to_contain_text("/srv/in/17.mkv")


def test_5_a_state_changes_without_a_reload_and_typed_text_stays(site: Site, page: Page) -> None:
    """5: from running to done, while somebody types in the filter form."""
    site.worker()
    puppet = site.running()
    page.goto(f"{site.address}/tasks")
    expect(row(page, "Tasks", "app.video.encode")).to_contain_text("running")
    box = page.get_by_role("searchbox", name="Find tasks")
    box.fill("half a wo")
    puppet.order("end", None).becomes("done")
    expect(row(page, "Tasks", "app.video.encode")).to_contain_text("done")
    expect(box).to_be_focused()
    expect(box).to_have_value("half a wo")
    page.keyboard.type("rd")
    expect(box).to_have_value("half a word")


def test_6_output_appears_and_follows_until_somebody_scrolls_up(site: Site, page: Page) -> None:
    """6."""
    site.worker()
    puppet = site.running().order("print", "\n".join(f"line {number}" for number in range(200))).obeyed()
    page.goto(f"{site.address}/tasks/{puppet.id}")
    log = output(page, puppet.id)
    expect(log).to_contain_text("line 199")
    eventually(lambda: log.evaluate("e => e.scrollHeight - e.clientHeight - e.scrollTop < 20"), "the end of the log")
    puppet.order("print", "a later line")
    expect(log).to_contain_text("a later line")
    eventually(lambda: log.evaluate("e => e.scrollHeight - e.clientHeight - e.scrollTop < 20"), "the end again")
    log.evaluate("e => e.scrollTo(0, 0)")
    puppet.order("print", "another line")
    expect(log).to_contain_text("another line")
    assert log.evaluate("e => e.scrollTop") == 0
    assert log.inner_text().count("line 199") == 1


def test_7_long_output_says_what_was_left_out(site: Site, page: Page) -> None:
    """7: nothing twice, and the end is there."""
    site.worker()
    puppet = site.running()
    puppet.order("print", "the start").order("print", "x" * 79 + "\n").obeyed()
    for number in range(8):
        puppet.order("print", "\n".join(f"{number}.{line} {'y' * 90}" for line in range(250)))
    puppet.order("print", "the very end").obeyed()
    page.goto(f"{site.address}/tasks/{puppet.id}")
    log = output(page, puppet.id)
    expect(log).to_contain_text("the very end")
    expect(log).to_contain_text(re.compile(r"left out|omitted"))
    puppet.order("print", "and one more").obeyed()
    expect(log).to_contain_text("and one more")
    assert log.inner_text().count("the very end") == 1
    assert log.inner_text().count("7.249 ") == 1


def test_8_attempts_are_listed_in_order_with_their_outcomes_and_errors(site: Site, page: Page) -> None:
    """8: a task that failed twice, was lost, was released, and was then done."""
    worker = site.worker()
    puppet = site.running().order("fail", "first fault").order("fail", "second fault")
    puppet.order("release").order("progress", 1, 2).obeyed()
    eventually(lambda: puppet.task.refresh().progress, "the last attempt")
    worker.send_signal(signal.SIGKILL)
    site.worker()
    eventually(lambda: puppet.task.refresh().attempt >= 4 and puppet.task.state == "running", "the rescue")
    puppet.order("end", 1).becomes("done")
    page.goto(f"{site.address}/tasks/{puppet.id}")
    rows = table(page, "Attempts").get_by_role("row")
    texts = [text for text in rows.all_inner_texts() if re.search("failed|lost|released|done", text)]
    outcomes = [re.search("failed|lost|released|done", text)[0] for text in texts]  # type: ignore[index]
    expected = ["failed", "failed", "released", "lost", "done"]
    assert outcomes in (expected, expected[::-1])
    everything = page.get_by_role("main").inner_text()
    assert "first fault" in everything
    assert "second fault" in everything


def test_9_the_timeline_says_the_same_as_its_table(site: Site, page: Page) -> None:
    """9: a bar for each attempt; the table behind "Show as table"."""
    site.worker()
    puppet = site.running().order("fail", "first fault").order("progress", 1, 2)
    eventually(lambda: puppet.task.refresh().attempt == 2 and puppet.task.progress, "the second attempt")
    page.goto(f"{site.address}/tasks/{puppet.id}")
    picture = page.get_by_role("img", name=f"Timeline of task {puppet.id}")
    expect(picture).to_be_visible()
    show = page.get_by_text("Show as table").first
    expect(show).to_be_visible()
    show.click()
    expect(page.get_by_role("main").get_by_role("cell", name=re.compile("failed")).first).to_be_visible()


def test_10_memory_and_cpu_of_a_task_that_computes(site: Site, page: Page) -> None:
    """10."""
    site.worker()
    task = site.queue.enqueue(orders.spin.bind(megabytes=60))
    page.goto(f"{site.address}/tasks/{task.id}")
    expect(page.get_by_role("main")).to_contain_text(re.compile(r"([6-9]\d|1\d\d)(\.\d+)? MiB"))
    expect(page.get_by_role("main")).to_contain_text(re.compile(r"\d+ ?%"))


def test_11_a_pending_task_says_what_it_waits_for(site: Site, page: Page) -> None:
    """11: the same reasons as ``why``."""
    lane = site.lane("video")
    task = lane.enqueue(1)
    lane.pause()
    page.goto(f"{site.address}/tasks/{task.id}")
    expect(page.get_by_role("main")).to_contain_text("paused")
    lane.resume()
    expect(page.get_by_role("main")).to_contain_text(re.compile("no (live )?worker", re.IGNORECASE))


def test_14_a_killed_worker_is_lost(site: Site, page: Page) -> None:
    """14."""
    worker = site.worker()
    page.goto(f"{site.address}/workers")
    expect(row(page, "Workers", re.compile(rf"\b{worker.pid}\b"))).to_be_visible()
    worker.kill()
    page.wait_for_timeout(0)
    eventually(
        lambda: not row(page, "Workers", re.compile(rf"\b{worker.pid}\b")).filter(has_not_text="lost").count(),
        "the worker is lost",
    )


def test_18_doctor_shows_its_findings_with_the_command_that_fixes_them(site: Site, page: Page) -> None:
    """18: the same findings as the command line."""
    site.lane("mail").enqueue(1)
    page.goto(f"{site.address}/doctor")
    findings = site.api("doctor")["findings"]
    assert findings
    for finding in findings:
        expect(page.get_by_role("main")).to_contain_text(finding["value"])
        if finding["broken"]:
            expect(page.get_by_role("main")).to_contain_text(finding["advice"])


def test_nothing_needs_you_while_all_is_well(site: Site, page: Page) -> None:
    """Overview: an empty database needs nobody; a failed task does."""
    expect(page.get_by_role("main")).to_contain_text("Nothing needs you")
    site.worker()
    site.queue.enqueue(orders.broken.bind("no disk"))
    expect(row(page, "Latest failures", "no disk")).to_be_visible()
    expect(page.get_by_role("main")).not_to_contain_text("Nothing needs you")


def test_the_navigation_leads_to_all_sections(site: Site, page: Page) -> None:
    """OPERATORS: navigation "Main" with its seven links; each page says which one it is."""
    main = page.get_by_role("navigation", name="Main")
    for name in ("Overview", "Tasks", "Queues", "Functions", "Schedules", "Workers", "Overdue"):
        main.get_by_role("link", name=re.compile(f"^{name}")).click()
        expect(main.locator("[aria-current=page]")).to_contain_text(name)
        expect(page.get_by_role("heading", level=1)).to_be_visible()
