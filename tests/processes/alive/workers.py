"""Workers as real processes: their code, and what a test needs to know about them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import until

WORKER = """
import ctypes, json, logging, os, re, signal, sys, time
from dbtaskqueue import Worker, current_task
url, note, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
out = os.open(note, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def say(*words):
    os.write(out, (" ".join(map(str, words)) + chr(10)).encode())
def hold_the_interpreter(seconds):
    # one backtracking match holds the interpreter lock from its start to its end
    for length in range(18, 40):
        started = time.monotonic()
        re.match("(a+)+$", "a" * length + "b")
        if time.monotonic() - started >= seconds:
            return
def work(payload):
    do, argument = payload
    say("start", do, current_task().id, os.getpid())
    if do == "sleep":
        time.sleep(argument)
    elif do == "hold":
        hold_the_interpreter(argument)
    elif do == "obey":
        while not current_task().should_stop:
            time.sleep(0.01)
    elif do == "linger":
        while not current_task().should_stop:
            time.sleep(0.01)
        say("told")
        time.sleep(argument)
    elif do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif do == "fork":
        child = ctypes.PyDLL(None).fork()  # as C code forks: no hook of Python's closes what it inherits
        if child == 0:
            time.sleep(argument)
            os._exit(0)
        say("child", child)
        time.sleep(argument)
    say("end", do, current_task().id, os.getpid())
    return do
run = options.pop("run", {})
Worker(url, **options).run(work, **run)
"""

FETCHER = """
import os, sys, re, time
from dbtaskqueue import TaskQueue
queue = TaskQueue(sys.argv[1], lease=float(sys.argv[2]))
[task] = queue.fetch(timeout=30)
task.start()
print("start", flush=True)
for length in range(18, 40):
    started = time.monotonic()
    re.match("(a+)+$", "a" * length + "b")
    if time.monotonic() - started >= float(sys.argv[3]):
        break
task.finish("held")
queue.close()
print("end", flush=True)
"""


def children_of(pid: int) -> list[int]:
    """The direct children of a process, by the pids of this place."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in path.read_text().split()]
    return found


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def heartbeat_process_of(pid: int) -> int:
    """The pid of a worker's heartbeat process."""

    def find() -> int:
        for child in children_of(pid):
            try:
                if b"heartbeat_process.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return child
            except FileNotFoundError:
                continue
        return 0

    return until(find, what="a heartbeat process")


class Elsewhere:
    """A process that is PID 1 of a PID namespace of its own: another place, as in a container."""

    def __init__(self, start: Callable[..., subprocess.Popen[str]], code: str, *arguments: object) -> None:
        user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
        command = ["unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc"]
        self.process = start([*command, sys.executable, "-c", code, *map(str, arguments)])

    def pids(self) -> list[int]:
        """The pids of its processes in this place; the first one is its worker."""
        found, to_visit = [], [self.process.pid]
        while to_visit:
            children = children_of(to_visit.pop())
            found += children
            to_visit += children
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to every process of that place, the worker first."""
        for pid in self.pids():
            os.kill(pid, number)

    def kill(self) -> None:
        """Send SIGKILL to everything in that place."""
        os.kill(self.pids()[0], signal.SIGKILL)
        self.process.wait(timeout=30)


def need_namespaces() -> None:
    """Skip with a message in capitals if no PID namespace can be made."""
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    command = ["unshare", *user, "--pid", "--fork", "--mount-proc", "true"]
    if not shutil.which("unshare") or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("NO PID NAMESPACE CAN BE MADE HERE: what happens in another place is not tested")


def has_written(note: Path, *words: object) -> bool:
    """Whether a worker has written a line that starts with these words."""
    start = " ".join(map(str, words))
    return note.exists() and any(line.startswith(start) for line in note.read_text().splitlines())


def watch(seconds: float, condition: Callable[[], bool], what: str) -> None:
    """Check that a condition stays true for this many seconds, the only way to show that nothing happens."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition(), what
        time.sleep(0.02)
