"""dbtaskqueue demo: it shows what it promises, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.running import COMMAND, WITHIN, Cli, assert_explained
from helpers import until


@pytest.fixture
def mark(cli: Cli) -> Iterator[str]:
    """A word in the environment of the demo and of every process that it starts; none may be left."""
    word = f"DEMO_TEST={uuid.uuid4().hex}"
    cli.environment |= {"TMPDIR": str(cli.folder), **dict([word.split("=")])}
    yield word
    until(lambda: not marked(word), within=10, what="the end of every process of the demo")
    assert list(cli.folder.iterdir()) == [], "the temporary folder is gone"


def marked(word: str) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if word.encode() in read(path)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_demo_shows_the_promise(cli: Cli, mark: str) -> None:
    began = time.monotonic()
    run = cli.run([*COMMAND, "demo"], env={"DBTASKQUEUE_URL": "nonsense", "DBTASKQUEUE_WORKER_BURST": "1"})
    assert (run.code, run.err) == (0, "")
    assert time.monotonic() - began < 30
    story, _, lesson = run.out.partition("What you saw")
    killed = re.search(r"runs in process (\d+); that one gets SIGKILL", story)
    assert killed
    assert "8 tasks were accepted, and all 8 are done" in lesson
    assert re.search(r"failed at its attempt 1\. It was retried (1|2|3)\.\d s later and done at its attempt 2", lesson)
    assert f"Process {killed[1]} was killed in the middle of task 1" in lesson
    assert re.search(r"again [0-4]\.\d s later: attempt 2", lesson)


def test_the_demo_on_a_terminal(cli: Cli, mark: str) -> None:
    run = cli.on_terminal("demo")
    assert run.code == 0
    assert "tasks done" in run.out, "a bar shows how it goes on"
    assert "all 8 are done" in run.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(cli: Cli, mark: str, number: signal.Signals) -> None:
    with cli.started("demo") as demo:
        until(lambda: len(marked(mark)) >= 5, what="two workers and their hearts")
        os.killpg(demo.pid, number)  # a terminal's Ctrl-C reaches every process of the group
        _, err = demo.communicate(timeout=WITHIN)
    assert demo.returncode == 1
    assert err.decode().strip() == "Aborted!"


def test_a_demo_whose_workers_cannot_start_says_so(cli: Cli, mark: str) -> None:
    run = cli.run([*COMMAND, "demo"], env={"PYTHONHASHSEED": "0", "PYTHONPATH": _breaks_workers(cli)})
    assert_explained(run, "the demo did not show what it should", "no worker began", "No module named")
    subprocess.run(["rm", "-r", _breaks_workers(cli)], check=True)


def _breaks_workers(cli: Cli) -> str:
    """A folder whose ``sitecustomize`` lets no Python start that was told to run a worker."""
    folder = Path(cli.folder, "path")
    folder.mkdir(exist_ok=True)
    Path(folder, "sitecustomize.py").write_text(
        "import sys\nif 'worker' in sys.orig_argv: sys.stderr.write('No module named x\\n'); import os; os._exit(1)\n"
    )
    return str(folder)
