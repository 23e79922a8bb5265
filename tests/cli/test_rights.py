"""Errors for an ordinary user without access to a file or its directory. Root runs these tests as another user."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli.running import WITHIN, Run, assert_explained
from servers.accounts import account, hand_over, new_directory

from dbtaskqueue import TaskQueue

# Root imports everything first: the other user may not be able to read this checkout, or Python itself.
AS_ORDINARY_USER = """
import encodings.ascii, os, sys
import rich.console, rich.table, rich.text
from dbtaskqueue import TaskQueue
from dbtaskqueue.cli import main
TaskQueue("sqlite:///:memory:").close()
user, group, *words = sys.argv[1:]
if user:
    os.setgroups([])
    os.setgid(int(group))
    os.setuid(int(user))
main(words, prog_name="dbtaskqueue")
"""
COMMANDS = (("doctor",), ("doctor", "--json"), ("list",), ("stats",), ("pause",), ("enqueue", "1"))


class Place:
    """A directory of an ordinary user, with a database."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "tasks.sqlite"
        self.url = f"sqlite:///{self.file}"
        with TaskQueue(self.url) as queue:
            queue.enqueue(1)
        hand_over(directory)

    def __call__(self, *words: str) -> Run:
        """Run a command as the ordinary user."""
        user, group, _ = account()
        numbers = ["" if number is None else str(number) for number in (user, group)]
        ended = subprocess.run(
            [sys.executable, "-c", AS_ORDINARY_USER, *numbers, "--url", self.url, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd="/",
            timeout=WITHIN,
        )
        return Run(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


@pytest.fixture
def place() -> Iterator[Place]:
    above = new_directory("rights")
    directory = above / "directory"
    directory.mkdir()
    try:
        yield Place(directory)
    finally:
        above.chmod(0o700)
        directory.chmod(0o700)
        shutil.rmtree(above)


def test_an_ordinary_user_may_do_everything_in_its_own_place(place: Place) -> None:
    """Check that the tests below run commands correctly."""
    assert place("list", "--json").json[0]["payload"] == 1
    assert place("enqueue", "2").out == "2\n"
    assert place("doctor").code == 0


CLOSED: dict[str, Callable[[Place], Path]] = {}
"""Things to which the user has no access.

Each function removes the access and returns the path that errors must name.
"""


def closed(path: Path, mode: int) -> Path:
    path.chmod(mode)
    return path


CLOSED["a read-only file"] = lambda place: closed(place.file, stat.S_IRUSR)
CLOSED["a file without any access"] = lambda place: closed(place.file, 0)
CLOSED["a read-only directory"] = lambda place: closed(place.directory, stat.S_IRUSR | stat.S_IXUSR)
CLOSED["a parent directory without any access"] = lambda place: closed(place.directory.parent, 0) and place.file
CLOSED["a directory without any access"] = lambda place: closed(place.directory, 0)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("kind", CLOSED)
def test_an_error_names_the_path_without_access(place: Place, kind: str, command: tuple[str, ...]) -> None:
    path = CLOSED[kind](place)
    run = place(*command)
    if kind.startswith("a read-only") and command[0] in ("list", "stats"):
        assert (run.code, run.err) == (0, ""), "reading is enough"
        return
    assert_explained(run, str(path))
    assert re.search("may not|must be able to", run.err), run
    assert "does not exist" not in run.err


@pytest.mark.parametrize("kind", ["a read-only file", "a read-only directory"])
def test_doctor_suggests_a_fix_that_works(place: Place, kind: str) -> None:
    if kind.endswith("directory"):
        with TaskQueue(place.url):  # this keeps SQLite's two other files, so that doctor can open the database
            for file in place.directory.iterdir():
                hand_over(file)
            path = CLOSED[kind](place)
            found = place("doctor", "--json")
    else:
        path = CLOSED[kind](place)
        assert place("list").code == 0, "SQLite creates its two other files with the mode of the file, and leaves them"
        found = place("doctor", "--json")
    [rights] = [finding for finding in found.json["findings"] if finding["broken"]]
    assert rights["name"] == "rights"
    assert str(path) in rights["value"]
    words = shlex.split(rights["advice"])
    assert words[0] == "chmod"
    subprocess.run(words, check=True)
    assert place("doctor").code == 0
    assert place("enqueue", "2").out == "2\n"
