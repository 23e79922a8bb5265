"""Draw docs/watch.svg, the picture of ``dbtaskqueue watch`` in README: ``python docs/screenshot.py [FILE]``.

Real workers run real tasks on a SQLite file, and the picture is what the command shows of them on a terminal. Only two
things are made up: tasks and workers are said to have started hours ago, and the machine has another name.
tests/docs/test_screenshot.py draws the picture again and compares what does not depend on the moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import re
import select
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

COLUMNS, ROWS = 108, 20
HOST = "studio"
PATIENCE = 60.0
"""Seconds until the tasks must have come as far as the picture shows them."""

STUDIO = '''
import time
from pathlib import Path
from dbtaskqueue import AbandonTask, RetryPolicy, TaskQueue, current_task

videos = TaskQueue("sqlite:///studio.sqlite", "videos", retry=RetryPolicy(delay=900))
mails = TaskQueue("sqlite:///studio.sqlite", "mails")

def work(first, total, each, megabytes, message):
    """Report progress every few moments, and compute for a part of the time."""
    memory = b"x" * (megabytes << 20)
    for done in range(first, total):
        current_task().progress(done, total, message)
        until = time.process_time() + each / 3
        while time.process_time() < until:
            pass
        time.sleep(each / 2)

@videos.task(name="transcode")
def transcode(file, *, to):
    work(89_000, 144_000, 0.1, 96, "pass 2")

@videos.task(name="subtitles")
def subtitles(file):
    work(12, 80, 2, 160, "chapter 3")

@videos.task(name="upload")
def upload(file):
    if file == "trailer.webm":
        raise ConnectionError("media.example.com does not answer")
    work(310, 4_000, 0.5, 8, "part 4")

@videos.task(name="thumbnail")
def thumbnail(file):
    pass

@videos.task(name="probe")
def probe(file):
    raise AbandonTask("no audio track in interview.mov")

@mails.task(name="send")
def send(to):
    pass
'''

ENQUEUE = """
from studio import *

transcode.enqueue("holiday.mov", to="webm")
subtitles.enqueue("lecture-07.mp4")
upload.enqueue("concert.webm")
upload.enqueue("trailer.webm")
probe.enqueue("interview.mov")
for number in range(37):
    thumbnail.using(priority=1).enqueue(f"archive/{number:03}.mov")
for number in range(14):
    transcode.using(start_in=86400).enqueue(f"archive/{number:03}.mov", to="webm")
mails.enqueue_many([{"args": [f"{number}@example.com"], "kwargs": {}} for number in range(3)], start_in=3600)
for number in range(1208):
    send.enqueue(f"{number}@example.com")
TaskQueue("sqlite:///studio.sqlite", "imports").pause()
"""

AGES = {"holiday": 7421, "lecture-07": 1993, "concert": 404}
"""Seconds since each of the running tasks was started."""
AGE_OF_WORKERS = 183_000

THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        *((22, 27, 34), (255, 123, 114), (63, 185, 80), (210, 153, 34)),
        *((88, 166, 255), (188, 140, 255), (57, 197, 207), (201, 209, 217)),
    ],
)


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory, scene(Path(directory)) as environment:
        frame = watch(Path(directory), environment)
    path.write_text(drawing(frame))


@contextlib.contextmanager
def scene(directory: Path) -> Iterator[dict[str, str]]:
    """Enqueue the tasks and run two workers until the block ends; yields the environment for other commands."""
    environment = {**os.environ, "DBTASKQUEUE_URL": "sqlite:///studio.sqlite", "TERM": "xterm-256color"}
    for name in ("NO_COLOR", "COLORTERM", "DBTASKQUEUE_QUEUE", "COLUMNS", "LINES"):
        environment.pop(name, None)
    (directory / "studio.py").write_text(STUDIO)

    def run(*words: str) -> None:
        subprocess.run([sys.executable, *words], cwd=directory, env=environment, check=True)

    run("-c", ENQUEUE)
    options = ("--drain-timeout", "0s", "--log-level", "error")
    workers = [
        subprocess.Popen([sys.executable, "-m", "dbtaskqueue", "worker", *words], cwd=directory, env=environment)
        for words in (
            ["studio:videos", "--queue", "videos", "--concurrency", "4", *options],
            ["studio:mails", "--queue", "mails", "--executor", "thread", *options],
        )
    ]
    try:
        database = sqlite3.connect(directory / "studio.sqlite", timeout=PATIENCE)
        with contextlib.closing(database):
            _wait_for_tasks(database)
            [concert] = database.execute("SELECT id FROM dbtaskqueue_task WHERE payload LIKE '%concert%'").fetchone()
            run("-m", "dbtaskqueue", "suspend", str(concert))
            _age(database)
        yield environment
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(PATIENCE)


def _wait_for_tasks(database: sqlite3.Connection) -> None:
    count = "SELECT count(*) FROM dbtaskqueue_task WHERE state = ?"
    wanted = {"done": 1245, "running": 3, "failed": 1, "abandoned": 1}
    deadline = time.monotonic() + PATIENCE
    while any(database.execute(count, (state,)).fetchone()[0] != number for state, number in wanted.items()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the tasks have not reached these states: {wanted}")
        time.sleep(0.1)


def _age(database: sqlite3.Connection) -> None:
    """Make the running tasks and the workers older than they are."""
    with database:
        for file, seconds in AGES.items():
            database.execute(
                "UPDATE dbtaskqueue_task SET started_at = started_at - ? WHERE state = 'running' AND payload LIKE ?",
                (seconds * 1_000_000, f"%{file}%"),
            )
        database.execute("UPDATE dbtaskqueue_worker SET created_at = created_at - ?", (AGE_OF_WORKERS * 1_000_000,))


def watch(directory: Path, environment: dict[str, str]) -> list[str]:
    """The lines of the command's screen, with their colours, once it shows everything that the picture needs."""
    terminal, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    command = [sys.executable, "-m", "dbtaskqueue", "watch", "--interval", "0.3s"]
    process = subprocess.Popen(
        command, cwd=directory, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
    )
    os.close(slave)
    seen = ""
    deadline = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 65536).decode(errors="replace")
            frames = seen.split("\x1b[H")[1:-1]  # the last one may be incomplete
            if frames and _is_complete(_plain(frames[-1])):
                return [_with_other_host(line) for line in _colours_only(frames[-1]).splitlines()]
        raise TimeoutError(f"the screen does not show everything:\n{_plain(frames[-1] if frames else seen)}")
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def _colours_only(frame: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\r", "", frame)


def _plain(frame: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", frame)


def _is_complete(screen: str) -> bool:
    """Whether two running tasks show all that is measured of them, and the third one that it is suspended."""
    measured = re.compile(r"% +(\d+[smhd])+ +[\d.]+ MiB +[1-9]\d*% .*(transcode|subtitles)|% .* MiB .*\(suspended\)")
    return len(measured.findall(screen)) == 3


def _with_other_host(line: str) -> str:
    return re.sub(rf"(?<=\d  ){re.escape(socket.gethostname())}\b", HOST, line)


def drawing(lines: list[str]) -> str:
    """The screen as an SVG without fonts of its own: it is shown as an image, which may load none."""
    page = Console(width=COLUMNS, record=True, file=io.StringIO(), color_system="truecolor", force_terminal=True)
    for line in lines:
        text = Text.from_ansi(line)
        text.rstrip()
        page.print(text, no_wrap=True, overflow="crop")
    form = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace")
    svg = page.export_svg(title="dbtaskqueue watch", theme=THEME, code_format=form, unique_id="watch")
    return "\n".join(line.rstrip() for line in svg.splitlines()) + "\n"


def lines_of(svg: str) -> list[str]:
    """The text of a drawing, sorted by line, without what changes from moment to moment."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in re.findall(r'<text class="[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', svg):
        rows.setdefault(float(y), []).append((float(x), text))
    return sorted(_timeless(" ".join(text for _, text in sorted(row))) for row in rows.values())


def _timeless(line: str) -> str:
    line = line.replace("&#160;", " ")
    line = re.sub(r"[█░]+ *\d+%", "PROGRESS", line)
    line = re.sub(r"[\d.]+ [KMG]iB", "MEMORY", line)
    line = re.sub(r"\b(\d\d:\d\d:\d\d|\d+%|(\d+[smhd])+)(?!\w)", "", line)
    line = re.sub(r"^\d+ +alive +(\w+) +(\d+) +\d+", r"WORKER \1 \2", line)
    return " ".join(line.split())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "watch.svg")
