"""dbtaskqueue demo shows what it claims, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.running import COMMAND, WITHIN, Cli, Terminal, assert_explained
from helpers import until


@pytest.fixture
def mark(cli: Cli) -> Iterator[str]:
    """A mark in the environment of the demo and of every process that it starts, none of which may be left."""
    word = f"DEMO_TEST={uuid.uuid4().hex}"
    cli.environment |= {"TMPDIR": str(cli.directory), **dict([word.split("=")])}
    yield word
    until(lambda: not marked(word), what="the end of every process of the demo")
    assert list(cli.directory.iterdir()) == [], "the temporary directory is gone"


def marked(word: str) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if word.encode() in read(path)]


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_demo_shows_a_retry_a_kill_and_a_rescue(cli: Cli, mark: str) -> None:
    run = cli.run([*COMMAND, "demo"], env={"DBTASKQUEUE_URL": "nonsense", "DBTASKQUEUE_WORKER_BURST": "1"})
    assert (run.code, run.err) == (0, "")
    story, _, lesson = run.out.partition("What you saw")
    events = re.findall(r"^ *\d+\.\d s  (\S+(?: -9)?) +(.*)$", story, re.MULTILINE)
    names = [name for name, _ in events]
    assert names[:2] == ["stored", "workers"]
    assert names.count("done") == 8
    assert names.index("failed") < names.index("KILL -9") < names.index("rescued")
    assert names.count("progress") >= 2
    assert ("progress", "task 1: page 40 of 40") in events
    events_by_name = dict(events)
    killed = re.fullmatch(r"worker (\d+), in the middle of task 1", events_by_name["KILL -9"])
    rescued = re.fullmatch(r"task 1: worker (\d+) continues at page (\d+), not at 1", events_by_name["rescued"])
    assert killed
    assert rescued
    assert events_by_name["workers"] in (
        f"processes {killed[1]} and {rescued[1]}",
        f"processes {rescued[1]} and {killed[1]}",
    )
    assert int(rescued[2]) > 20
    assert "8 tasks were accepted, and all 8 are done" in lesson
    assert re.search(r"failed at attempt 1\. It was retried [1-9]\d*\.\d s later and done at attempt 2", lesson)
    soon = r"(\d+\.\d s later|immediately)"
    assert re.search(rf"Worker {killed[1]} was killed .*\n  Worker {rescued[1]} took over {soon}", lesson)
    assert max(map(len, run.out.splitlines()[:-10])) <= 80, "the commands at the end may be longer"
    assert "\x1b" not in run.out


def test_the_commands_that_the_demo_ends_with_work(cli: Cli, mark: str) -> None:
    """They are run unchanged, in a shell in an empty directory."""
    user = cli.directory / "user"
    user.mkdir()
    out = cli.run([*COMMAND, "demo"]).out
    commands = re.findall(r"^  (?!#)(\S.*)$", out.partition("Three commands to try next:")[2], re.MULTILINE)
    assert len(commands) == 3
    stored, _, shown = (
        subprocess.run(
            ["sh", "-c", command], cwd=user, env=cli.environment, capture_output=True, text=True, timeout=WITHIN
        )
        for command in commands
    )
    assert stored.stdout == "1\n"
    assert re.search(r"^state +done$", shown.stdout, re.MULTILINE)
    assert "{'hello': 'world'}" in shown.stdout, "its output"
    subprocess.run(["rm", "-r", user], check=True)


def test_the_demo_on_a_terminal(cli: Cli, mark: str) -> None:
    run = cli.on_terminal("demo")
    assert run.code == 0
    bars = re.findall(r"━.*page (\d+) of 40", run.out)
    assert len(set(bars)) >= 5, "a bar moves"
    assert bars[-1] == "40"
    assert re.search(r"\x1b\[[\d;]*41mKILL -9\x1b\[0m", run.out), "on a red ground"
    assert "all 8 are done" in run.out


def test_the_demo_on_a_terminal_without_colours(cli: Cli, mark: str) -> None:
    run = cli.on_terminal("demo", env={"NO_COLOR": "1"})
    assert run.code == 0
    assert "━" in run.out
    assert not re.search(r"\x1b\[[\d;]*3\dm", run.out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demo_leaves_nothing(cli: Cli, mark: str, number: signal.Signals) -> None:
    with cli.started("demo") as demo:
        until(lambda: len(marked(mark)) >= 5, what="two workers and their heartbeat processes")
        os.killpg(demo.pid, number)  # a terminal's Ctrl-C reaches every process of the group
        _, err = demo.communicate(timeout=WITHIN)
    assert demo.returncode == 1
    assert err.decode().strip() == "Aborted!"


def test_a_demo_whose_workers_cannot_start_reports_it(cli: Cli, mark: str) -> None:
    with _at_start(cli, _BREAK_WORKERS) as path:
        run = cli.run([*COMMAND, "demo"], env={"PYTHONHASHSEED": "0", "PYTHONPATH": path})
    assert_explained(run, "the demo did not show what it should", "no worker started the long task", "No module named")


_BREAK_WORKERS = """
if 'worker' in sys.orig_argv:
    sys.stderr.write('No module named x\\n')
    os._exit(1)
"""


@contextlib.contextmanager
def _at_start(cli: Cli, code: str) -> Iterator[str]:
    """Yield a PYTHONPATH with which every Python process runs ``code`` when it starts."""
    directory = Path(cli.directory, "path")
    directory.mkdir()
    Path(directory, "sitecustomize.py").write_text(f"import os, signal, sys\n{code}")
    try:
        yield os.pathsep.join([str(directory), *filter(None, [cli.environment.get("PYTHONPATH")])])
    finally:
        shutil.rmtree(directory)


def test_an_interrupted_demo_leaves_the_terminal_as_it_was(cli: Cli, mark: str) -> None:
    with cli.terminal("demo") as terminal:
        until(lambda: "━" in terminal.shown, what="the bar")
        terminal.press("\x03")
        _assert_aborted(terminal)


def test_more_interrupts_do_not_disturb_the_end_of_a_demo(cli: Cli, mark: str) -> None:
    with cli.terminal("demo") as terminal:
        until(lambda: "━" in terminal.shown, what="the bar")
        while terminal.process.poll() is None:
            # Not by the key: with each Ctrl-C, the kernel discards what this test has not read yet.
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.shown
            time.sleep(0.005)
        _assert_aborted(terminal)


_AT_AN_IMPORT = """
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "rich.progress":
            exec("os.kill(os.getpid(), signal.SIGINT)")

if "worker" not in sys.orig_argv:
    sys.meta_path.insert(0, Finder())
"""
_AT_THE_START_OF_THE_BAR = """
from rich.console import Console

show_cursor = Console.show_cursor

def show_cursor_then_interrupt(self, show=True):
    show_cursor(self, show)
    if not show:
        os.kill(os.getpid(), signal.SIGINT)

Console.show_cursor = show_cursor_then_interrupt
"""


@pytest.mark.parametrize("moment", [_AT_AN_IMPORT, _AT_THE_START_OF_THE_BAR], ids=["import", "start of the bar"])
def test_a_demo_can_be_interrupted_at_an_inconvenient_moment(cli: Cli, mark: str, moment: str) -> None:
    with _at_start(cli, moment) as path, cli.terminal("demo", env={"PYTHONPATH": path}) as terminal:
        _assert_aborted(terminal)


def _assert_aborted(terminal: Terminal) -> None:
    assert terminal.leaves() == 1
    assert terminal.is_as_before
    assert "\r\nAborted!\r\n" in terminal.shown
    assert "Traceback" not in terminal.shown


def test_the_demo_of_the_dashboard(cli: Cli, mark: str) -> None:
    """It says where it is, has tasks that run, and ends with all that it has started."""
    pytest.importorskip("starlette")
    process = subprocess.Popen(
        [*COMMAND, "demo", "--dashboard", "--port", "0"],
        env=cli.environment,
        cwd=cli.directory,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert re.fullmatch(r"dashboard: http://127\.0\.0\.1:\d+/\?token=\S+\n", lines[1])
    finally:
        process.terminate()
        assert process.wait(WITHIN) == 0
