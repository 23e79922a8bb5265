"""examples/long_task.py: a long task survives a kill, a suspension and a deploy."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import ended, until

EXAMPLES = Path(__file__).parents[2] / "examples"
WITHIN = 180


class Show:
    """Run a copy of the examples, with a mark in the environment of all processes that it starts."""

    def __init__(self, directory: Path) -> None:
        self.examples = directory / "examples"
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        shutil.copytree(EXAMPLES, self.examples, ignore=shutil.ignore_patterns("__pycache__"))
        self.mark = f"SHOW_TEST={uuid.uuid4().hex}"

    def start(self) -> subprocess.Popen[str]:
        name, _, word = self.mark.partition("=")
        return subprocess.Popen(
            [sys.executable, "-B", str(self.examples / "long_task.py")],
            env={**os.environ, "TMPDIR": str(self.temporary), "DBTASKQUEUE_URL": "nonsense", name: word},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def processes(self) -> list[str]:
        """Return the pids of the processes with the mark in their environment."""
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if self.mark.encode() in path.read_bytes():
                    found.append(path.parent.name)
            except OSError:
                continue
        return found


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Show]:
    """A copy that leaves no process and no file behind."""
    show = Show(tmp_path)
    yield show
    until(lambda: not show.processes(), what="the end of all its processes")
    assert list(show.temporary.iterdir()) == []


def test_a_long_task_survives_what_the_example_shows(show: Show) -> None:
    with ended(show.start()) as process:
        out, err = process.communicate(timeout=WITHIN)
    assert (process.returncode, err) == (0, "")
    story, _, lesson = out.partition("What you saw")
    for what in (r"worker \d+ gets SIGKILL", r"is suspended", r"a deploy: worker \d+ gets SIGTERM", r"finishes it"):
        assert re.search(what, story), what
    assert "All 120 pages were requested" in lesson


def test_it_fails_if_a_claim_is_false(show: Show) -> None:
    crawl = show.examples / "crawl.py"
    text = crawl.read_text()
    crawl.write_text(text.replace("task.checkpoint(number + 1)", "pass"))
    assert crawl.read_text() != text
    with ended(show.start()) as process:
        _, err = process.communicate(timeout=WITHIN)
    assert process.returncode == 1
    assert err.startswith("This is false: it continues where it was, not at page-1.html")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(show: Show, number: signal.Signals) -> None:
    with ended(show.start()) as process:
        assert process.stdout is not None
        until(lambda: "SIGKILL" in process.stdout.readline(), what="its first kill")  # type: ignore[union-attr]
        process.send_signal(number)
        process.communicate(timeout=WITHIN)
    assert process.returncode != 0
