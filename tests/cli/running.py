"""Runs the command as a user does: through pipes, and on a pseudo-terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

COMMAND = (sys.executable, "-m", "dbtaskqueue")
WITHIN = 60.0
"""Seconds that a command may take before the test gives up."""
_OURS = ("DBTASKQUEUE_", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM", "TZ")


class Run(NamedTuple):
    """How a command ended; on a terminal everything is in ``out``."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli:
    """The command, in a folder and on a database."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self.environment |= {"TERM": "xterm-256color", "TZ": "UTC", "PYTHONDONTWRITEBYTECODE": "1"}

    def line(self, *words: object) -> list[str]:
        """The command line with the database's URL."""
        return [*COMMAND, "--url", self.url, *map(str, words)]

    def __call__(self, *words: object, stdin: str = "", env: Mapping[str, str] = {}) -> Run:
        """Run through pipes."""
        return self.run(self.line(*words), stdin=stdin, env=env)

    def run(self, command: Sequence[str], *, stdin: str = "", env: Mapping[str, str] = {}) -> Run:
        """Run any command line through pipes."""
        ended = subprocess.run(
            command,
            input=stdin.encode(),
            capture_output=True,
            env={**self.environment, **env},
            cwd=self.folder,
            timeout=WITHIN,
        )
        return Run(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    @contextlib.contextmanager
    def started(self, *words: object) -> Iterator[subprocess.Popen[bytes]]:
        """The command as a process that goes on running; killed at the end if it still does."""
        process = subprocess.Popen(
            self.line(*words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            cwd=self.folder,
            process_group=0,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def on_terminal(self, *words: object, answer: str = "", columns: int = 80, env: Mapping[str, str] = {}) -> Run:
        """Run on a pseudo-terminal; ``answer`` is typed at the first question."""
        terminal, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(
            self.line(*words),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**self.environment, **env},
            cwd=self.folder,
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


def _read(terminal: int, answer: str) -> str:
    """Everything that a process shows until it ends."""
    shown, deadline = b"", time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            chunk = os.read(terminal, 65536)
        except OSError:  # what Linux says when the other side is closed
            chunk = b""
        if not chunk:
            return shown.decode().replace("\r\n", "\n")
        shown += chunk
        if answer and b"[y/N]:" in shown:
            os.write(terminal, answer.encode() + b"\n")
            answer = ""
    raise AssertionError(f"still running after {WITHIN} s, having shown {shown!r}")


def assert_explained(run: Run, *words: str) -> None:
    """It failed, and said why in one line on stderr."""
    assert run.code == 1, run
    assert run.err.startswith("Error: "), run
    assert run.err.count("\n") == 1, run
    for word in words:
        assert word in run.err


def assert_wrong_usage(run: Run, *words: str) -> None:
    """It was refused as a command line that cannot be understood."""
    assert run.code == 2, run
    assert "Traceback" not in run.err
    assert run.out == ""
    for word in words:
        assert word in run.err
