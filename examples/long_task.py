"""What a long task survives, in ten seconds: python examples/long_task.py

The script starts a local web site, the task of crawl.py, and three workers. The first is killed, the second is stopped
for a deploy, the third finishes. Everything is in a temporary directory. The script checks each of its statements and
exits with code 1 if one is false.
"""

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

PAGES = [f"page-{number}.html" for number in range(1, 121)]
EXAMPLES = Path(__file__).parent
PATIENCE = 30.0
INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Site(http.server.BaseHTTPRequestHandler):
    """Serves each page slowly, and records which process has requested it."""

    seconds = 0.1
    asked: list[tuple[str, int]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        self.asked.append((name, int(self.headers["User-Agent"].removeprefix("crawl/"))))
        time.sleep(self.seconds)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(" ".join(PAGES).encode() if name == "names" else content(name).encode())

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the process that sent the request was killed
            super().handle()

    def log_message(self, *args: object) -> None:
        pass

    @classmethod
    def pages_for(cls, process: int) -> list[str]:
        """Return the pages that this process has requested, in order."""
        return [name for name, asker in cls.asked if asker == process and name != "names"]


def content(name: str) -> str:
    return f"<h1>{name}</h1>"


def play(directory: str, site: str) -> None:
    from crawl import crawl, queue

    task = crawl.enqueue(site, f"{directory}/pages")
    print(f"Task {task.id} crawls {len(PAGES)} pages. Imagine that it takes nine hours.")
    with workers(directory) as start:
        first = start()
        process = crawling(8)
        first.kill()
        first.wait()
        until(lambda: state_of(process) in "ZX", "a task's process ends with its worker")
        last = Site.pages_for(process)[-1]
        print(f"At {last} worker {first.pid} gets SIGKILL. Process {process}, which ran the task, ends with it.")

        second = start()
        process = crawling(8, besides=[process])
        resumed = Site.pages_for(process)[0]
        check(PAGES.index(resumed) - PAGES.index(last) in (0, 1), f"it continues where it was, not at {resumed}")
        print(f"A new worker has taken the task. It continues at {resumed}, not at {PAGES[0]}.")

        queue.suspend(task.id)
        until(lambda: state_of(process) == "T", "the suspended task is stopped")
        before = len(Site.pages_for(process))
        time.sleep(1)
        # One request may still be in progress.
        check(len(Site.pages_for(process)) - before <= 1, "it requests no page meanwhile")
        check(task.refresh().state == "running" and task.suspended, "its worker still holds it")
        at = Site.pages_for(process)[-1]
        queue.continue_(task.id)
        until(lambda: Site.pages_for(process)[-1] != at, "it continues")
        print(f"At {at} it is suspended. For a second, it requests no page. Then it is continued.")

        second.send_signal(signal.SIGTERM)
        check(second.wait(PATIENCE) == 0, "a worker exits with 0 after SIGTERM")
        check((task.refresh().state, task.attempt) == ("pending", 1), "it is released, and no attempt is spent")
        print(f"At {Site.pages_for(process)[-1]} a deploy: worker {second.pid} gets SIGTERM, releases it and exits.")

        Site.seconds = 0.0  # serve the rest quickly
        third = start()
        until(lambda: task.refresh().state == "done", "it finishes")
        print(f"Worker {third.pid}, the third, finishes it: {task.result}.")
    judge(task, Path(directory, "pages"))


def crawling(pages: int, besides: list[int] = []) -> int:  # noqa: B006
    """Wait until a process that is not in *besides* has requested this many pages; return its pid."""

    def found() -> int | None:
        counts = Counter(process for name, process in Site.asked if name != "names" and process not in besides)
        return next((process for process, count in counts.items() if count >= pages), None)

    return until(found, f"{pages} pages are crawled")


def judge(task, directory: Path) -> None:
    """Compare the site, the disk and the database with the summary, then print it."""
    attempts = [(attempt.number, attempt.outcome) for attempt in task.attempts()]
    check(attempts == [(1, "lost"), (2, "released"), (2, "done")], f"lost, released, done, not {attempts}")
    written = {path.name: path.read_text() for path in directory.iterdir()}
    check(written == {name: content(name) for name in PAGES}, "every page is on the disk, with its content")
    times = Counter(name for name, _ in Site.asked)
    twice = [name for name in PAGES if times[name] > 1]
    check(times["names"] == 1, "the list of pages was requested once: it is a step")
    check(
        len(twice) <= 1 and times.total() == 1 + len(PAGES) + len(twice),
        f"at most one page was requested twice: {twice}",
    )
    check(all(state_of(process) in "ZX" for _, process in Site.asked), "no process is left")
    which = f"{twice[0]} twice, as SIGKILL came before its checkpoint" if twice else "none of them twice"
    print(
        f"""
What you saw, confirmed by the log of the web site:
- All {len(PAGES)} pages were requested, {which}.
- Attempt 1 was lost with its worker. Attempt 2 was released for the deploy, which spends no attempt, and the
  third worker continued it, still as attempt {task.attempt}. All that was needed was to start workers."""
    )


# -- workers, waiting, checking ------------------------------------------------------------------------


@contextlib.contextmanager
def workers(directory: str):
    """Start workers as a user would; none of them outlives the block."""
    command = [sys.executable, "-m", "dbtaskqueue", "worker", "--executor", "process"]
    command += ["--drain-timeout", "5s", "crawl:queue"]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with open(Path(directory, "log"), "ab") as log, uninterrupted():
            started.append(subprocess.Popen(command, cwd=EXAMPLES, stdout=log, stderr=log, process_group=0))
        return started[-1]

    try:
        yield start
    finally:
        for worker in started:
            worker.terminate()
        for worker in started:
            worker.wait()


@contextlib.contextmanager
def uninterrupted():
    """Delay interrupts to the end of the block, so that no process is started and forgotten."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def until(condition, claim: str):
    """Wait until the condition is true; return its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        check(time.monotonic() < deadline, f"{claim}, within {PATIENCE:.0f} s")
        time.sleep(0.02)
    return value


def check(holds: bool, claim: str) -> None:
    if not holds:
        sys.exit(f"This is false: {claim}.")


def state_of(pid: int) -> str:
    """Return the state of a process on Linux: T if it is stopped, Z or X if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def main() -> None:
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # leave no file behind
    sys.stdout.reconfigure(line_buffering=True)  # print each line as it happens
    for number in INTERRUPTIONS:
        signal.signal(number, signal.default_int_handler)  # handled like Ctrl-C, so that the workers end, too
    with (
        tempfile.TemporaryDirectory(prefix="dbtaskqueue-long-task-") as directory,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server,
    ):
        for name in [name for name in os.environ if name.startswith("DBTASKQUEUE_")]:
            del os.environ[name]  # not meant for these workers
        os.environ["DBTASKQUEUE_URL"] = f"sqlite:///{directory}/tasks.sqlite"
        Path(directory, "pages").mkdir()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            play(directory, f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()


if __name__ == "__main__":
    main()
