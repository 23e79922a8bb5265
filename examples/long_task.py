"""What a long task survives, in ten seconds: python examples/long_task.py

A site on this machine, the task of crawl.py, and three workers, each of which comes to its end: killed, stopped for
a deploy, and stopped when all is done. Everything is in a temporary folder. What is told at the end was checked: exit
code 1 if something did not hold.
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
    """Takes its time for each page, and notes which process has asked for it."""

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
        with contextlib.suppress(ConnectionError):  # whoever asked was killed meanwhile
            super().handle()

    def log_message(self, *args: object) -> None:
        pass

    @classmethod
    def pages_for(cls, process: int) -> list[str]:
        """The pages that this process has asked for, in their order."""
        return [name for name, asker in cls.asked if asker == process and name != "names"]


def content(name: str) -> str:
    return f"<h1>{name}</h1>"


def play(folder: str, site: str) -> None:
    from crawl import crawl, queue

    task = crawl.enqueue(site, f"{folder}/pages")
    print(f"Task {task.id} crawls {len(PAGES)} pages. Imagine that it takes nine hours.")
    with workers(folder) as start:
        first = start()
        process = crawling(8)
        first.kill()
        first.wait()
        until(lambda: state_of(process) in "ZX", "a task's process ends with its worker")
        last = Site.pages_for(process)[-1]
        print(f"At {last} worker {first.pid} gets SIGKILL. Process {process}, in which the task ran, ends with it.")

        second = start()
        process = crawling(8, besides=[process])
        begin = Site.pages_for(process)[0]
        check(PAGES.index(begin) - PAGES.index(last) in (0, 1), f"it goes on where it was, not with {begin}")
        print(f"A new worker has it. It goes on with {begin}, not with {PAGES[0]}.")

        queue.suspend(task.id)
        until(lambda: state_of(process) == "T", "a suspended task stands still")
        before = len(Site.pages_for(process))
        time.sleep(1)
        check(len(Site.pages_for(process)) - before <= 1, "it asks for nothing meanwhile")  # 1 was on its way
        check(task.refresh().state == "running" and task.suspended, "it stays its worker's")
        at = Site.pages_for(process)[-1]
        queue.continue_(task.id)
        until(lambda: Site.pages_for(process)[-1] != at, "it goes on when it is continued")
        print(f"At {at} it is suspended. For a second it asks for nothing. Continued, it goes on.")

        second.send_signal(signal.SIGTERM)
        check(second.wait(PATIENCE) == 0, "a worker that is to stop ends well")
        check((task.refresh().state, task.attempt) == ("pending", 1), "it is given back, and no attempt is spent")
        print(f"At {Site.pages_for(process)[-1]} a deploy: worker {second.pid} gets SIGTERM, gives it back and ends.")

        Site.seconds = 0.0  # nobody has to wait for the rest
        third = start()
        until(lambda: task.refresh().state == "done", "it comes to its end")
        print(f"Worker {third.pid}, the third, does the rest: {task.result}.")
    judge(task, Path(folder, "pages"))


def crawling(pages: int, besides: list[int] = []) -> int:  # noqa: B006
    """Wait until a process, another than these, has asked for so many pages; its pid."""

    def found() -> int | None:
        counts = Counter(process for name, process in Site.asked if name != "names" and process not in besides)
        return next((process for process, count in counts.items() if count >= pages), None)

    return until(found, f"{pages} pages are crawled")


def judge(task, folder: Path) -> None:
    """Check what is claimed, by what the site, the disk and the database say; then claim it."""
    attempts = [(attempt.number, attempt.outcome) for attempt in task.attempts()]
    check(attempts == [(1, "lost"), (2, "released"), (2, "done")], f"lost, released, done, not {attempts}")
    written = {path.name: path.read_text() for path in folder.iterdir()}
    check(written == {name: content(name) for name in PAGES}, "every page is on the disk, as the site has it")
    times = Counter(name for name, _ in Site.asked)
    twice = [name for name in PAGES if times[name] > 1]
    check(times["names"] == 1, "the list of pages was asked for once: it is a step")
    check(len(twice) <= 1 and times.total() == 1 + len(PAGES) + len(twice), f"at most one page came twice: {twice}")
    check(all(state_of(process) in "ZX" for _, process in Site.asked), "no process is left")
    which = f"{twice[0]} twice, since nobody had noted it when SIGKILL came" if twice else "none of them twice"
    print(
        f"""
What you saw, as the site's own record has it, too:
- All {len(PAGES)} pages were asked for, {which}.
- Attempt 1 was lost with its worker. The next one was given back for the deploy, which costs nothing, and went on as
  attempt {task.attempt} in the third worker. Nobody had to do anything but to start workers."""
    )


# -- workers, waiting, checking ------------------------------------------------------------------------


@contextlib.contextmanager
def workers(folder: str):
    """Starts workers as a user would; none of them outlives the block."""
    command = [sys.executable, "-m", "dbtaskqueue", "worker", "--executor", "process"]
    command += ["--drain-timeout", "5s", "crawl:queue"]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        with open(Path(folder, "log"), "ab") as log, uninterrupted():
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
    """Who interrupts during the block is heard at its end: in between, a process would be started and not known."""
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
    """Wait until the condition is true; its value."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        check(time.monotonic() < deadline, f"{claim}, within {PATIENCE:.0f} s")
        time.sleep(0.02)
    return value


def check(holds: bool, claim: str) -> None:
    if not holds:
        sys.exit(f"This did not hold: {claim}.")


def state_of(pid: int) -> str:
    """The state of a process as Linux has it: T stands still, Z and X have ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def main() -> None:
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # nothing is left behind, also beside this file
    sys.stdout.reconfigure(line_buffering=True)  # a story is told while it happens
    for number in INTERRUPTIONS:
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C does: the workers end, too
    with (
        tempfile.TemporaryDirectory(prefix="dbtaskqueue-long-task-") as folder,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server,
    ):
        for name in [name for name in os.environ if name.startswith("DBTASKQUEUE_")]:
            del os.environ[name]  # meant for other workers than these
        os.environ["DBTASKQUEUE_URL"] = f"sqlite:///{folder}/tasks.sqlite"
        Path(folder, "pages").mkdir()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            play(folder, f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()


if __name__ == "__main__":
    main()
