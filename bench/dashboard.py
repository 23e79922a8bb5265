"""The dashboard over a million tasks: pages, statements, memory, bytes, its effect on workers, and bulk actions.

``bench/servers/dashboard.py`` has the same for the servers.
"""

from __future__ import annotations

import contextlib
import gzip
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from dbtaskqueue import TaskQueue

from . import databases, million
from .harness import Bench, Row
from .processes import next_line, proportional_mib, start_child, started

PAGES = {
    "overview": ("/", 40),
    "list, newest": ("/tasks", 150),
    "list by state": ("/tasks?state=abandoned", 150),
    "list by function": ("/tasks?function=app.work.function_7", 150),
    "list by error": ("/tasks?error=timed+out", 150),
    "list by error that none has": ("/tasks?error=no+such+error", 150),
    "list by payload": ("/tasks?payload.args.0=failed", 150),
    "list by age": ("/tasks?ended=1h&state=failed", 150),
    "task": ("/tasks/{id}", 50),
    "charts of a queue": ("/queue?name=queue-7", 60),
    "function": ("/function?name=app.work.function_7", 60),
    "overdue": ("/overdue", 60),
}
_VIEWS = 60
_POLL = 1.0


class Browser:
    """A client of a dashboard that has signed in. It accepts gzip, as browsers do."""

    def __init__(self, link: str) -> None:
        self.home = link.partition("/?")[0]
        self.client = httpx.Client(base_url=self.home, headers={"Accept-Encoding": "gzip"}, timeout=30)
        self.client.get(link, follow_redirects=True).raise_for_status()

    def seconds(self, path: str) -> float:
        """Return how long the server takes to answer."""
        start = time.perf_counter()
        self.client.get(path).raise_for_status()
        return time.perf_counter() - start

    def close(self) -> None:
        """End its connections."""
        self.client.close()


@contextlib.contextmanager
def dashboard(url: str, *options: str) -> Iterator[tuple[int, Browser]]:
    """Yield the pid of a dashboard, and a signed-in client."""
    command = Path(sys.executable).with_name("dbtaskqueue")
    with started(command, "--url", url, "dashboard", "--port", "0", *options) as process:
        assert process.stdout is not None
        found = re.search(r"http\S+", process.stdout.readline().decode())
        assert found is not None
        browser = Browser(found[0])
        try:
            yield process.pid, browser
        finally:
            browser.close()


@contextlib.contextmanager
def viewers(home: Browser, number: int, path: str = "/") -> Iterator[None]:
    """Poll a page as so many open tabs do, each once a second, for the duration of the block."""
    stop = threading.Event()

    def poll(index: int) -> None:
        client = httpx.Client(base_url=home.home, cookies=home.client.cookies, timeout=30)
        tag, separator = "", "&" if "?" in path else "?"
        stop.wait(index / number * _POLL)
        with client:
            while not stop.is_set():
                answer = client.get(f"{path}{separator}part=1", headers={"If-None-Match": tag} if tag else {})
                tag = answer.headers.get("ETag", "")
                stop.wait(_POLL)

    threads = [threading.Thread(target=poll, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def measure(bench: Bench) -> Iterator[Row]:
    """Measure on SQLite."""
    with databases.fresh(bench, million.sqlite_file(bench)) as path:
        url = databases.url(path, "NORMAL")
        yield from pages(bench, "dashboard", "", url, more=0)
        yield from _memory(bench, url)
    with databases.fresh(bench) as path:
        yield from _quiet(bench, databases.url(path))
    with databases.fresh(bench) as path:
        yield _printed(bench, databases.url(path))
    yield _beside_workers(bench)
    yield from _cancelled(bench)


def pages(bench: Bench, group: str, engine: str, url: str, *, more: float) -> Iterator[Row]:
    """Yield the 95th percentile of each page's time. ``more``: milliseconds that are allowed besides."""
    views = bench.some(_VIEWS)
    with TaskQueue(url) as queue:
        id = queue.store.newest()[0] - 10
    with dashboard(url) as (_, browser):
        bench.say(f"{engine or 'SQLite'}: pages, {views} views each")
        for what, (path, most) in PAGES.items():
            path = path.format(id=id)
            browser.seconds(path)
            times = sorted(browser.seconds(path) for _ in range(views))
            yield Row(
                group,
                f"{engine}{', ' if engine else ''}page: {what} ({path}), p95",
                [1000 * times[int(0.95 * (views - 1))]],
                "ms",
                most + more,
                details=f"p50 {1000 * times[views // 2]:.1f}, longest {1000 * times[-1]:.1f} ms",
            )


def _memory(bench: Bench, url: str) -> Iterator[Row]:
    number = bench.some(10_000)
    with dashboard(url) as (pid, browser):
        bench.say(f"{number:,} pages")
        paths = [path.format(id=5000) for path, _ in PAGES.values()]
        cheap = [paths[0], paths[2], paths[-4]]
        for index in range(100):
            browser.seconds(paths[index % len(paths)])
        before = proportional_mib([pid])
        for index in range(number):
            browser.seconds(cheap[index % len(cheap)])
        after = proportional_mib([pid])
    yield Row("dashboard", f"memory of the dashboard after {number:,} pages", [after], "MiB", 64)
    yield Row("dashboard", f"memory after {number:,} pages against that after 100", [after / before], "×", 1.05)


def _quiet(bench: Bench, url: str) -> Iterator[Row]:
    """Yield the bytes of the first page with its assets, and those of a tab in which nothing happens."""
    seconds = 20 if bench.quick else 60
    with TaskQueue(url) as queue:
        queue.enqueue("later", start_in=3600)
    with dashboard(url) as (_, browser):
        page = browser.client.get("/")
        assets = re.findall(r'(?:href|src)="([^"]+/static/[^"]+|/static/[^"]+)"', page.text)
        sizes = [_sent(browser, path) for path in ("/", *dict.fromkeys(assets))]
        yield Row(
            "dashboard",
            "first page with its assets, compressed",
            [sum(sizes) / 1024],
            "KiB",
            25,
            details=f"{len(sizes)} answers: {', '.join(map(str, sizes))} bytes with their headers",
        )
        bench.say(f"a quiet tab for {seconds} s")
        tag, total = "", 0
        for _ in range(seconds):
            answer = browser.client.get("/?part=1", headers={"If-None-Match": tag} if tag else {})
            tag = answer.headers.get("ETag", "")
            total += _bytes_of(answer)
            time.sleep(_POLL)
    yield Row("dashboard", "a quiet tab", [total / seconds / 1024], "KiB/s", 0.6)


def _sent(browser: Browser, path: str) -> int:
    return _bytes_of(browser.client.get(path))


def _bytes_of(answer: httpx.Response) -> int:
    """Return the bytes of an answer on the wire: its body as it was compressed, and its headers."""
    body = len(answer.content)
    if answer.headers.get("Content-Encoding") == "gzip":
        body = answer.num_bytes_downloaded or len(gzip.compress(answer.content))
    return body + sum(len(name) + len(value) + 4 for name, value in answer.headers.raw)


def _printed(bench: Bench, url: str) -> Row:
    """Return the time from a line that a task prints until the API gives it, p95."""
    lines = bench.some(50)
    with dashboard(url) as (_, browser), start_child("printing_worker.py", url, lines) as worker:
        task = next_line(worker)["task"]
        bench.say(f"{lines} lines of output")
        delays, position = [], 0
        while len(delays) < lines:
            answer = browser.client.get(f"/api/v1/tasks/{task}/output", params={"after": position}).json()
            position = answer.get("position", position)
            delays += [time.time() - float(line) for line in answer.get("text", "").split()]
            if answer.get("ended"):
                break
            time.sleep(_POLL)
    delays.sort()
    return Row(
        "dashboard", "a line that a task prints until it is shown, p95", [delays[int(0.95 * len(delays))]], "s", 2.5
    )


def _beside_workers(bench: Bench) -> Row:
    """Return the throughput of a worker while ten tabs show the overview, against without a dashboard."""
    tasks = bench.some(40_000)
    found = []
    for repeat in range(bench.repeats):
        bench.say(f"a worker beside ten viewers, and alone ({repeat + 1} of {bench.repeats})")
        with _ours(bench, tasks) as url, dashboard(url) as (_, browser), viewers(browser, 10):
            time.sleep(1)
            watched = _work(url, tasks)
        with _ours(bench, tasks) as url:
            found.append(watched / _work(url, tasks))
    return Row("dashboard", "throughput of a worker with ten viewers against none", found, "×", 0.97, at_least=True)


@contextlib.contextmanager
def _ours(bench: Bench, tasks: int) -> Iterator[str]:
    with databases.fresh(bench, databases.ours(bench, tasks)) as path:
        yield databases.url(path, "NORMAL")


def _work(url: str, tasks: int) -> float:
    from .processes import run_child

    return float(run_child("worker.py", url, tasks))


def _cancelled(bench: Bench) -> Iterator[Row]:
    """Yield how long 100,000 tasks take to cancel beside a worker, and the worker's throughput meanwhile."""
    tasks = bench.some(100_000)
    with databases.fresh(bench) as path:
        url = databases.url(path, "NORMAL")
        with TaskQueue(url, "others") as others:
            for first in range(0, tasks, 10_000):
                others.enqueue_many(range(first, first + 10_000), start_in=3600)
        bench.say(f"{tasks:,} cancelled beside a worker")
        with start_child("endless_worker.py", url) as worker:
            next_line(worker)
            alone = next_line(worker)["rate"]
            with TaskQueue(url, "others") as others:
                start = time.monotonic()
                bulk = others.cancel_many(state="pending")
                seconds = time.monotonic() - start
            beside = []
            while True:
                line = next_line(worker)
                if line["at"] > start + seconds:
                    break
                if line["at"] > start + 1:
                    beside.append(line["rate"])
    assert bulk.changed == tasks, bulk
    yield Row("dashboard", f"{tasks:,} tasks cancelled in bulk beside a worker", [seconds], "s", 60)
    if beside:
        yield Row(
            "dashboard",
            "throughput of that worker meanwhile against before",
            [sum(beside) / len(beside) / alone],
            "×",
            0.5,
            at_least=True,
        )


def statements(bench: Bench, group: str, engine: str, url: str, count: Callable[[float], float]) -> Iterator[Row]:
    """Yield the statements a second without a viewer, with one and with fifty. ``count`` counts for some seconds."""
    seconds = 5.0 if bench.quick else 15.0
    with dashboard(url) as (_, browser):
        browser.seconds("/")
        time.sleep(12)  # the dashboard stops reading when nobody looks
        bench.say(f"{engine}: statements without a viewer, with one, with fifty")
        yield Row(group, f"{engine}: statements a second, no viewer", [count(seconds)], "/s", 0.1)
        with viewers(browser, 1):
            time.sleep(2)
            one = count(seconds)
        yield Row(group, f"{engine}: statements a second, one viewer of the overview", [one], "/s", 6)
        with viewers(browser, 50):
            time.sleep(2)
            yield Row(group, f"{engine}: fifty viewers against one", [count(seconds) / one], "×", 1.2)
