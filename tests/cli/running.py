"""Run the command as a user does: through pipes, and on a pseudo-terminal.

Through pipes, most commands run in this process, which saves the start of an interpreter for each. A separate process
is used for commands that start processes or handle signals (``worker``, ``watch``, ``demo``), if an environment
variable is for Python itself, and if a test passes another command line to ``run``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from dbtaskqueue.cli import main

COMMAND = (sys.executable, "-m", "dbtaskqueue")
WITHIN = 60.0
"""Seconds after which a test gives up on a command."""
_PROCESSES = {"worker", "watch", "demo", "-f", "--follow", "--listen"}
"""Command lines with one of these words need a separate process."""
_OURS = ("DBTASKQUEUE_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM", "TZ")


class Run(NamedTuple):
    """The result of a command. On a terminal, all output is in ``out``."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Terminal:
    """A process on a pseudo-terminal: its output, and the keys that it gets."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, slave: int) -> None:
        self.process = process
        self._master = master
        self._slave = slave
        self._before = termios.tcgetattr(slave)
        self._shown = b""

    @property
    def shown(self) -> str:
        """Everything that the process has shown so far."""
        while select.select([self._master], [], [], 0)[0]:
            self._shown += os.read(self._master, 65536)
        return self._shown.decode(errors="replace")

    @property
    def frame(self) -> list[str]:
        """Return the lines of the last complete screen, without colours."""
        last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", ["", *self.shown.split("\x1b[H")][-2])
        return [line.rstrip() for line in last.replace("\r\n", "\n").splitlines()]

    def press(self, keys: str) -> None:
        """Type these keys."""
        os.write(self._master, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the terminal, like a user who resizes the window."""
        _resize(self._master, columns, rows)

    def leaves(self) -> int:
        """Wait for the end of the process; return its exit code."""
        deadline = time.monotonic() + WITHIN
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still running, having shown {self._shown[-2000:]!r}"
            _ = self.shown  # or it waits for a reader
            time.sleep(0.01)
        return self.process.returncode

    @property
    def is_as_before(self) -> bool:
        """Whether echo, line editing, the ordinary screen and the cursor are as before."""
        shown = self.shown
        on_screen = shown.rfind("\x1b[?1049l") >= shown.rfind("\x1b[?1049h")
        has_cursor = shown.rfind("\x1b[?25h") >= shown.rfind("\x1b[?25l")
        return on_screen and has_cursor and termios.tcgetattr(self._slave) == self._before

    @property
    def echoes(self) -> bool:
        """Whether the terminal echoes typed keys."""
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)


class Cli:
    """Run the command, in a directory and on a database."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self.environment |= {"TERM": "xterm-256color", "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "1"}

    def line(self, *words: object) -> list[str]:
        """Return the command line with the database's URL."""
        return [*COMMAND, "--url", self.url, *map(str, words)]

    def __call__(self, *words: object, stdin: str = "", env: Mapping[str, str] = {}) -> Run:
        """Run the command through pipes."""
        return self.run(self.line(*words), stdin=stdin, env=env)

    def run(self, command: Sequence[str], *, stdin: str = "", env: Mapping[str, str] = {}) -> Run:
        """Run any command line through pipes."""
        own_process = _PROCESSES & {*command} or any(name.startswith("PYTHON") for name in env)
        if tuple(command[: len(COMMAND)]) == COMMAND and not own_process:
            return self._run_here(command[len(COMMAND) :], stdin, env)
        ended = subprocess.run(
            command,
            input=stdin.encode(),
            capture_output=True,
            env={**self.environment, **env},
            cwd=self.directory,
            timeout=WITHIN,
        )
        return Run(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    def _run_here(self, words: Sequence[str], stdin: str, env: Mapping[str, str]) -> Run:
        """Run the command in this process, with the environment and the directory that a process would have."""
        with _environment({**self.environment, **env}), contextlib.chdir(self.directory):
            ended = CliRunner().invoke(main, words, input=stdin, prog_name="dbtaskqueue", catch_exceptions=False)
        return Run(ended.exit_code, ended.stdout, ended.stderr)

    @contextlib.contextmanager
    def started(self, *words: object) -> Iterator[subprocess.Popen[bytes]]:
        """Start the command as a process, which is killed at the end of the block if it still runs."""
        process = subprocess.Popen(
            self.line(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.directory,
            process_group=0,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextlib.contextmanager
    def terminal(
        self,
        *words: object,
        command: Sequence[str] = (),
        env: Mapping[str, str] = {},
    ) -> Iterator[Terminal]:
        """Run the command on a pseudo-terminal, directly or as the arguments of another program."""
        master, slave = pty.openpty()
        _resize(slave, 80, 24)
        process = subprocess.Popen(
            [*command, *self.line(*words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**self.environment, **env},
            cwd=self.directory,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that keys like Ctrl-C send signals
        )
        terminal = Terminal(process, master, slave)
        try:
            yield terminal
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            os.close(master)
            os.close(slave)

    def on_terminal(self, *words: object, answer: str = "", columns: int = 80, env: Mapping[str, str] = {}) -> Run:
        """Run on a pseudo-terminal; type ``answer`` at the first question."""
        terminal, slave = pty.openpty()
        _resize(slave, columns, 24)
        process = subprocess.Popen(
            self.line(*words),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**self.environment, **env},
            cwd=self.directory,
            start_new_session=True,
        )
        os.close(slave)
        try:
            shown = _read(terminal, answer)
            return Run(process.wait(WITHIN), shown, "")
        finally:
            process.kill()
            process.wait()
            os.close(terminal)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set exactly these environment variables, and the time zone that they name."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(variables)
        time.tzset()
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        time.tzset()


def _resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _read(terminal: int, answer: str) -> str:
    """Return everything that a process shows until it ends."""
    shown, deadline = b"", time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # the error on Linux if the other side is closed
            chunk = b""
        if not chunk:
            return shown.decode().replace("\r\n", "\n")
        shown += chunk
        if answer and b"[y/N]:" in shown:
            os.write(terminal, answer.encode() + b"\n")
            answer = ""
    raise AssertionError(f"still running after {WITHIN} s, having shown {shown!r}")


def assert_explained(run: Run, *words: str) -> None:
    """Check that the command failed and explained it in one line on stderr."""
    assert run.code == 1, run
    assert run.err.startswith("Error: "), run
    assert run.err.count("\n") == 1, run
    for word in words:
        assert word in run.err


def assert_wrong_usage(run: Run, *words: str) -> None:
    """Check that the command was refused as wrong usage."""
    assert run.code == 2, run
    assert "Traceback" not in run.err
    assert run.out == ""
    for word in words:
        assert word in run.err


def widest(text: str) -> int:
    """Return the length of the longest line."""
    return max(len(line) for line in text.splitlines())
