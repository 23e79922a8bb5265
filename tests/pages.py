"""Run a page of the documentation as a reader would: top to bottom, in one directory.

What each kind of block means:

- ``python`` that starts with ``# name.py``: the file is written.
- Other ``python``: a script of its own. It must print what comments after ``print(…)``, or ``# prints: …``, show.
- ``console``: commands behind ``$``, each on a terminal, with its output. A worker without ``--burst`` keeps running
  beside the rest; ``watch`` is quit when it shows the screen. ``^C`` in their output is typed.
- ``text``: what a program that is still running prints next.
- ``sh``: commands that are not run, because they change the machine. Options of dbtaskqueue commands are checked.

In the output, ``…`` stands for anything, and times, durations, sizes and pids may differ. White space does not count,
since the width of columns and the wrapping depend on them.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from fcntl import ioctl
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, TypeVar

import click

from dbtaskqueue.cli import main

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
WITHIN = 60.0
"""Seconds that a command may take, or that a line may take to appear."""
WIDTH = 88
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w/]+\.py)\n")
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[a-zA-Z]|[()].)")
_LOOSE = re.compile(
    r"(?P<anything>…)|(?P<pid>pid=\d+)|(?P<date>\d{4}-\d\d-\d\d)|(?P<time>\d\d:\d\d:\d\d(,\d+)?)"
    r"|(?P<amount>\d+(\.\d+)? (ms|s|min|h|KiB|MiB|GiB)\b)|(?P<short>\b(\d+(\.\d+)?[smhd])+\b)"
    r"|(?P<seconds>(?<=seconds=)\d+(\.\d+)?)|(?P<percent>\d+(\.\d+)?%)|(?P<bar>[█░]+)"
)


class Block(NamedTuple):
    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(found[2], textwrap.dedent(found[3]), text.count("\n", 0, found.start()) + 1)
        for found in _FENCE.finditer(text)
    ]


def pattern(expected: str) -> str:
    """Return a regular expression for an output that a page shows."""
    seen: set[str] = set()

    def loosely(found: re.Match[str]) -> str:
        if found["pid"]:
            number = found["pid"].partition("=")[2]
            group = f"(?P<p{number}>[0-9]+)" if number not in seen else f"(?P=p{number})"
            seen.add(number)
            return f"pid={group}"
        return {
            "anything": ".*?",
            "date": "[0-9-]{10}",
            "time": "[0-9:,]{8,12}",
            "amount": r"[0-9.]+ (?:ms|s|min|h|KiB|MiB|GiB)",
            "short": "[0-9smhd.]+",
            "seconds": "[0-9.e-]+",
            "percent": "[0-9.]+%",
            "bar": "[█░]+",
        }[str(found.lastgroup)]

    parts, position = [], 0
    text = " ".join(expected.split())
    for found in _LOOSE.finditer(text):
        parts += [re.escape(text[position : found.start()]), loosely(found)]
        position = found.end()
    return "".join([*parts, re.escape(text[position:])])


def plain(output: str) -> str:
    """Return the output without colours and line breaks."""
    return " ".join(_ESCAPES.sub("", output).split())


class _Terminal:
    """A command on a terminal."""

    def __init__(self, command: str, directory: Path, environment: Mapping[str, str]) -> None:
        self.command = command
        self._master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, WIDTH, 0, 0))
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=directory,
            env={**environment, "TERM": "xterm-256color", "TZ": "UTC"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),  # so that ^C becomes a signal
        )
        os.close(slave)
        self._raw = ""
        self._seen = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # Linux raises this when the last process on the terminal has ended
                return
            if not chunk:
                return
            self._raw += chunk.decode(errors="replace")

    @property
    def stays(self) -> bool:
        """Return whether the command keeps running until it is stopped."""
        words = self.command.split()
        return "dbtaskqueue" in words[:3] and "worker" in words and "--burst" not in words

    @property
    def lines(self) -> str:
        """Return the lines of the output so far, or of the last screen."""
        return _ESCAPES.sub("", self._raw.split("\x1b[H")[-1]).replace("\r", "")

    @property
    def shown(self) -> str:
        return plain(self._raw)

    def shows(self, expected: str) -> bool:
        """Return whether this is on the last complete screen."""
        return bool(re.search(pattern(expected), plain(["", *self._raw.split("\x1b[H")][-2])))

    def find(self, expected: str) -> re.Match[str] | None:
        """Find an output after the previous match."""
        found = re.compile(pattern(expected)).search(self.shown, self._seen)
        if found:
            self._seen = found.end()
        return found

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def wait(self) -> int:
        code = self.process.wait(WITHIN)
        self._reader.join(WITHIN)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join(WITHIN)
        os.close(self._master)


class Reader:
    """Follows a page in a directory, with this Python or another one."""

    def __init__(self, directory: Path, python: str = sys.executable) -> None:
        self.directory = directory
        self.python_path = python
        self.environment = {
            "PATH": f"{Path(python).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin",
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "-p no:asyncio",  # which warns unless an option is set
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
        }
        self.pids: dict[str, str] = {}
        self._running: list[_Terminal] = []

    @contextlib.contextmanager
    def following(self) -> Iterator[Reader]:
        """Follow a page; end programs that are still running at the end of the block."""
        try:
            yield self
        finally:
            for terminal in self._running:
                terminal.close()

    def follow(self, page: Path) -> None:
        """Run the blocks of a page."""
        for block in blocks_of(page):
            action = {"python": self.python, "console": self.console, "text": self.text, "sh": check_options}
            try:
                action.get(block.language, lambda text: None)(block.text)
            except Exception as error:
                error.add_note(f"in the block at {page.relative_to(ROOT)}:{block.line}")
                raise

    def python(self, text: str) -> None:
        """Write a file, or run a script."""
        if named := _FILE.match(text):
            file = self.directory / named[1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return
        script = self.directory / "example.py"
        script.write_text(text)
        done = subprocess.run(
            [self.python_path, script.name],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WITHIN,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        promised = re.findall(r"^ *print\(.*\)  # (.*)$|^# prints: (.*)$", text, re.MULTILINE)
        for line, promise in zip([*done.stdout.splitlines(), ""], [*map("".join, promised), ""], strict=True):
            assert re.fullmatch(pattern(promise), plain(line)), f"promised: {promise}\nprinted: {line}"

    def console(self, text: str) -> None:
        """Run the commands, and compare what they print."""
        for shown, real in self.pids.items():
            text = re.sub(rf"\b{shown}\b", real, text)
        for command, expected in commands_of(text):
            terminal = _Terminal(command, self.directory, self.environment)
            self._running.append(terminal)
            if command.startswith("dbtaskqueue watch"):
                _until(lambda: terminal.shows(expected), terminal, expected)  # noqa: B023
                terminal.type("q")
                terminal.wait()
            elif terminal.stays:
                self._expect([terminal], expected)
            else:
                terminal.wait()
                assert re.fullmatch(pattern(expected), terminal.shown), mismatch(terminal, expected)

    def text(self, text: str) -> None:
        """Wait until a program that keeps running has printed this."""
        self._expect([terminal for terminal in self._running if terminal.stays], text)

    def _expect(self, terminals: list[_Terminal], expected: str) -> None:
        """Wait until a terminal prints the lines. ``^C`` is typed in the terminal that printed the lines before it."""
        for index, lines in enumerate(re.split(r"^\^C\n", expected, flags=re.MULTILINE)):
            if index:
                terminals = terminals[-1:]
                terminals[0].type("\x03")
            if lines.strip():
                found, terminal = _until(lambda: first_found(terminals, lines), terminals[-1], lines)  # noqa: B023
                terminals = [terminal]
                self.pids |= {name[1:]: number for name, number in found.groupdict().items()}


def first_found(terminals: list[_Terminal], expected: str) -> tuple[re.Match[str], _Terminal] | None:
    """Return the output and the terminal that has it, if any."""
    return next(((found, terminal) for terminal in terminals if (found := terminal.find(expected))), None)


def mismatch(terminal: _Terminal, expected: str) -> str:
    """Return a message for a command that printed something else."""
    return f"$ {terminal.command}\n{expected}\nbut it printed:\n{terminal.lines}"


def _until(condition: Callable[[], T | None], terminal: _Terminal, expected: str) -> T:
    """Wait up to WITHIN seconds until the condition returns a true value; return it."""
    deadline = time.monotonic() + WITHIN
    while not (found := condition()):
        assert time.monotonic() < deadline, mismatch(terminal, expected)
        time.sleep(0.02)
    return found


def commands_of(text: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with the output below it."""
    commands: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], ""))
        else:
            command, output = commands.pop()
            commands.append((command, f"{output}{line}\n"))
    return commands


def check_options(text: str) -> None:
    """Check that the command line accepts each of our commands in a shell block."""
    for line in text.replace("\\\n", " ").splitlines():
        words = [re.sub(".*/dbtaskqueue$", "dbtaskqueue", word) for word in shlex.split(line, comments=True)]
        if "dbtaskqueue" in words and "install" not in words:
            rest = words[words.index("dbtaskqueue") + 1 :]
            rest = rest[2:] if rest[:1] == ["--backend"] else rest  # an option of Django's management command
            parse(list(takewhile(lambda word: word not in ("|", ">", ">>"), rest)))


def parse(words: list[str]) -> None:
    """Have click parse a command line, without running it. Raises click.UsageError."""
    with main.make_context("dbtaskqueue", list(words)) as context:
        name, command, options = main.resolve_command(context, [*context._protected_args, *context.args])
        assert isinstance(command, click.Command), name
        command.make_context(name, options, parent=context)
