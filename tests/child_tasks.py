"""Tasks for child processes: a callback at the top of a module, where a child finds it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ctypes
import fcntl
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from dbtaskqueue import AbandonTask, LeaseLost, ReleaseTask, RetryTask, TaskCancelled, TaskQueue, current_task

IMPORTED_BY = os.getpid()
"""The pid of the process that imported this module: in a child, that of its fork server."""

functions = TaskQueue("sqlite:///:memory:")


@functions.task
def double(number: int, *, plus: int = 0) -> int:
    return 2 * number + plus


@functions.task
async def later(text: str) -> str:
    await asyncio.sleep(0.01)
    return text


@functions.task
def join(parts: list[Any], *, more: Any = None) -> list[Any]:
    return [parts, more, [[each.id, each.function, each.state, each.result] for each in current_task().parents]]


@functions.task
async def join_later(parts: list[Any], *, more: Any = None) -> list[Any]:
    await asyncio.sleep(0.01)
    return join(parts, more=more)


def act(payload: dict[str, Any]) -> Any:
    """Run the function that the payload's ``do`` names."""
    return globals()[f"do_{payload['do']}"](**{name: value for name, value in payload.items() if name != "do"})


async def act_async(payload: dict[str, Any]) -> Any:
    """Do the same as ``act``, as a coroutine."""
    await asyncio.sleep(0)
    if payload["do"] != "wait_for":
        return act(payload)
    note(payload["file"], "started")
    while not Path(payload["go"]).exists():
        await asyncio.sleep(0.005)
    return "gone"


def note(file: str, text: object) -> None:
    """Add a line to a file, for the test to read."""
    with open(file, "a", encoding="utf-8") as out:
        out.write(f"{text}\n")


def do_return(value: Any = None) -> Any:
    return value


def do_square(file: str, number: int) -> int:
    note(file, number)
    return number**2


def do_fail_once(file: str) -> int:
    note(file, current_task().attempt)
    if current_task().attempt == 1:
        raise ValueError("no good")
    return 2


def do_chain(url: str, length: int) -> None:
    """Enqueue the next task, up to a number of tasks."""
    if length:
        with TaskQueue(url) as queue:
            queue.enqueue({"do": "chain", "url": url, "length": length - 1})


def do_mixed(number: int) -> int:
    if number % 3 == 0:
        raise ValueError(number)
    if number % 7 == 0:
        raise ReleaseTask(3600)
    return number


def do_wait_for(file: str, go: str) -> str:
    note(file, "started")
    wait_for(go)
    return "gone"


def do_give(what: str) -> object:
    """Return a result that cannot be stored."""
    return {"object": object(), "nan": float("nan"), "surrogate": "\ud800", "key": {1: 2}, "number": 2**70}[what]


def do_where() -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "imported_by": IMPORTED_BY,
        "group": os.getpgid(0),
        "threads": threading.active_count(),
        "main": threading.current_thread() is threading.main_thread(),
    }


def do_pool(count: int) -> list[int]:
    """Use a process pool. At the end of the block, the pool sends SIGTERM to its processes and waits for them."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, range(-count, 0))


def do_keep_all_the_time(file: str) -> None:
    """Store checkpoints without a pause, so that a transaction is nearly always open."""
    note(file, os.getpid())
    for number in itertools.count():
        current_task().checkpoint(number)


def do_keep_now_and_then(file: str) -> Any:
    """Store a checkpoint, use no database until the task should stop, then store another."""
    task = current_task()
    task.checkpoint("now")
    note(file, os.getpid())
    while not task.should_stop:
        time.sleep(0.02)
    task.checkpoint("then")
    return task.saved


def do_note_slowly(file: str, number: int) -> None:
    """Take some milliseconds, so that another process has time to kill this one."""
    note(file, number)
    time.sleep(0.003)


def do_raise(text: str = "no good") -> None:
    raise ValueError(text)


CHOICES = {
    "retry": RetryTask(0),
    "retry later": RetryTask(3600),
    "abandon": AbandonTask("never"),
    "release": ReleaseTask(3600),
    "exit": SystemExit(3),
    "interrupt": KeyboardInterrupt(),
    "cancelled": TaskCancelled("from elsewhere"),
}


def do_choose(name: str) -> None:
    raise CHOICES[name]


def do_exit(code: int) -> None:
    sys.exit(code)


def do_hard_exit(code: int) -> None:
    print("last words")
    os._exit(code)


def do_print_a_surrogate() -> None:
    print("\udcff")


def do_print_and_die(number: int) -> None:
    print("last words")
    os.kill(os.getpid(), number)
    time.sleep(60)


def do_die(number: int) -> None:
    os.write(1, b"before the end\n")
    os.kill(os.getpid(), number)
    time.sleep(60)


def do_segfault() -> None:
    ctypes.string_at(0)


def do_memory_error() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**30, resource.RLIM_INFINITY))
    bytearray(2**34)


def do_nonsense() -> object:
    return object()


def do_large(size: int) -> str:
    return "x" * size


def do_print(text: str) -> None:
    print(text)
    print(f"{text} on stderr", file=sys.stderr)
    subprocess.run(["echo", f"{text} of a child of its own"], check=True)


def do_write(number: int) -> None:
    """Write the number up to twice, to stdout and stderr, past Python's buffers."""
    for turn in range(number % 3):
        os.write(1 + turn, f"{number} ".encode())


def do_flood(megabytes: int) -> None:
    os.write(1, b"the beginning\n")
    block = b"x" * 2**20
    for _ in range(megabytes):
        left = block
        while left:
            left = left[os.write(1, left) :]
    os.write(1, b"\nthe end\n")


def do_count_and_print(file: str) -> None:
    note(file, os.getpid())
    print("working on it")
    time.sleep(60)


def do_open_files_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def do_close_output() -> int:
    os.close(1)
    os.close(2)
    time.sleep(0.3)
    return 1


def do_leave(file: str, way: str) -> str:
    """Start processes that would outlive the task."""
    if way == "child":
        left = subprocess.Popen(["sleep", "300"]).pid
    elif way == "session":
        left = subprocess.Popen(["sleep", "300"], start_new_session=True).pid
    else:  # a daemon, whose parent ends
        code = (
            "import os, subprocess; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid, flush=True)"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        left = int(process.stdout.readline())
        process.wait()
    note(file, left)
    return way


def do_leave_thread() -> int:
    threading.Thread(target=time.sleep, args=(300,)).start()
    return os.getpid()


def do_family(file: str, ignore: bool = False) -> None:
    """Start two child processes, note all pids, and run until stopped."""
    if ignore:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    children = [
        subprocess.Popen([sys.executable, "-c", code] if ignore else ["sleep", "300"], start_new_session=apart)
        for apart in (False, True)
    ]
    note(file, " ".join(str(pid) for pid in (os.getpid(), *(child.pid for child in children))))
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        time.sleep(0.1)


def do_note_and_wait(file: str) -> None:
    note(file, "started")
    time.sleep(60)


def do_until_told(file: str) -> str:
    """Run until the task should stop, and note the reason."""
    note(file, os.getpid())
    try:
        while not current_task().should_stop:
            time.sleep(0.02)
    except TaskCancelled:
        note(file, "cancelled")
        raise
    note(file, "stopping")
    return "told"


def do_resume(file: str, steps: int, seconds: float = 0.2) -> int:
    """Count up from the checkpoint. Note each step and store a checkpoint after it."""
    task = current_task()
    start = task.saved or 0
    for number in range(start, steps):
        if task.should_stop:
            raise ReleaseTask
        time.sleep(seconds)
        note(file, f"{task.attempt} {number}")
        task.checkpoint(number + 1)
        task.progress(number + 1, steps)
    return steps


def do_deployed(file: str, gate: str, steps: int, seconds: float, looks: bool) -> int:
    """Run many steps, the last one only once the file ``gate`` exists. If ``looks``, release the task on a drain."""
    task = current_task()
    for number in range(task.saved or 0, steps):
        time.sleep(seconds)
        while number == steps - 1 and not Path(gate).exists() and not (looks and task.should_stop):
            time.sleep(seconds)
        if looks and task.should_stop:
            raise ReleaseTask
        note(file, f"{os.environ['DEPLOYED_AS']} {task.id} {number}")
        task.checkpoint(number + 1)
    return steps


def do_ignore_the_drain(file: str) -> None:
    """Run forever, and note when the task should stop."""
    note(file, "started")
    while not current_task().should_stop:
        time.sleep(0.02)
    note(file, "told")
    while True:
        time.sleep(0.02)


def do_progress(count: int, pause: float = 0.0) -> str:
    for number in range(count):
        current_task().progress(number + 1, count, f"step {number + 1}")
        time.sleep(pause)
    return "told"


def do_steps(file: str, die_after: str | None = None) -> list[Any]:
    task = current_task()

    def step(name: str) -> str:
        note(file, name)
        if die_after == f"{name} run" and task.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return name.upper()

    found = []
    for name in ("one", "two", "three"):
        found.append(task.step(name, step, name))
        if die_after == f"{name} stored" and task.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return found


def do_hold_the_interpreter(seconds: float) -> str:
    """Run C code that keeps the interpreter lock: no other thread or signal handler of this process can run."""
    started = time.monotonic()
    collections.deque(itertools.repeat(None, 10**7), 0)
    rounds = seconds / (time.monotonic() - started)
    collections.deque(itertools.repeat(None, int(rounds * 10**7)), 0)
    return "done"


def do_spin(file: str) -> str:
    """Compute until a file exists."""
    while not os.path.exists(file):
        sum(range(100_000))
    return "spun"


def do_sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def do_count_seconds(file: str, seconds: float) -> int:
    """Add a note every 0.05 s."""
    ticks = int(seconds / 0.05)
    for tick in range(ticks):
        note(file, tick)
        time.sleep(0.05)
    return ticks


def do_take_memory(megabytes: int, seconds: float = 0.0) -> int:
    block = bytearray(megabytes * 2**20)
    for place in range(0, len(block), 4096):
        block[place] = 1
    time.sleep(seconds)
    return len(block)


def do_insert(table: str, number: int, die: str | None = None, file: str | None = None, go: str | None = None) -> None:
    """Write in a transaction that also finishes the task. The first attempt dies at a chosen point.

    In the transaction it notes its pid in ``file`` and waits for the file ``go``.
    """
    is_first = current_task().attempt == 1

    def reach(place: str) -> None:
        if die == place and is_first:
            os.kill(os.getpid(), signal.SIGKILL)

    reach("before")
    with current_task().transaction(number) as connection:
        cursor = connection.cursor()
        cursor.execute(f"INSERT INTO {table} (id) VALUES ({int(number)})")
        reach("inside")
        if file is not None:
            note(file, os.getpid())
        if go is not None:
            wait_for(go)
    reach("after")


def wait_for(file: str) -> None:
    """Wait until the test creates this file."""
    deadline = time.monotonic() + 60
    while not Path(file).exists():
        assert time.monotonic() < deadline, "the test did not create the file"
        time.sleep(0.005)


def do_late(file: str, go: str, what: str, table: str) -> None:
    """When the test says so, store a checkpoint, and note the result."""
    note(file, "start")
    wait_for(go)
    task = current_task()
    try:
        if what == "checkpoint":
            task.checkpoint(f"of token {task.token}")
        elif what == "step":
            task.step("one", lambda: f"of token {task.token}")
        else:
            with task.transaction() as connection:
                connection.cursor().execute(f"INSERT INTO {table} (id) VALUES ({task.token})")
    except (LeaseLost, TaskCancelled) as error:
        note(file, type(error).__name__)
        raise
    note(file, "kept")


async def do_coroutine(file: str) -> None:
    """Wait in an event loop until cancelled, and note how the wait ended."""
    note(file, os.getpid())
    try:
        await asyncio.sleep(300)
    except BaseException as error:
        note(file, type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0.01)
        note(file, f"left, cancelled: {current_task().cancelled}")


# -- misbehaviour ------------------------------------------------------------------------------------


def do_close_all(first: int) -> int:
    """Close every file descriptor of this process."""
    os.closerange(first, 1000)
    time.sleep(0.2)
    return first


def own_sockets() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                found.append(int(name))
    return found


GARBAGE = {
    "noise": bytes(range(255, 0, -1)),
    "half a header": b"\0\0",
    "a header of something that never comes": b"\0\1\0\0",
    "no object": b"\0\0\0\2[]",
    "much": b"\0",
}


def do_garbage(kind: str) -> str:
    """Write garbage into every socket of this process until the other end closes it."""
    for fd in own_sockets():
        with contextlib.suppress(OSError):
            left = memoryview(GARBAGE[kind] * (2**26 if kind == "much" else 1))
            os.set_blocking(fd, True)
            while left:
                left = left[os.write(fd, left) :]
    return kind


def do_fork_away(file: str) -> None:
    """Continue in a forked copy, while the original child process ends."""
    if os.fork():
        os._exit(0)
    note(file, os.getpid())
    time.sleep(300)


def do_scatter(file: str) -> None:
    """Start processes that leave the process group in every way and ignore SIGTERM, then wait."""
    for how in (os.setsid, lambda: os.setpgid(0, 0), lambda: None):
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            how()
            if os.fork() == 0:  # a daemon, whose parent ends
                os.closerange(0, 1000)
                note(file, os.getpid())
                time.sleep(300)
            os._exit(0)
    time.sleep(300)


def do_hold_half(file: str, seconds: float) -> str:
    """Keep the interpreter lock half of the time."""
    note(file, os.getpid())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        started = time.monotonic()
        collections.deque(itertools.repeat(None, 2 * 10**7), 0)
        time.sleep(time.monotonic() - started)
    return "held"


def do_oom(directory: str) -> None:
    """Take memory without limit, in a control group with a small limit."""
    Path(directory, "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    blocks = []
    while True:
        blocks.append(bytearray(b"x") * 2**20)


# -- under load, while processes are killed ------------------------------------------------------------


def identity(pid: int | str = "self") -> str:
    """Return an identity of a process that stays unique when its pid is used again."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        text = file.read()
    return f"{text.split()[0]}:{text.rpartition(') ')[2].split()[19]}"


class Journal:
    """Records one execution for the oracle, with a lock that two executions of a task cannot both have.

    The kernel releases the lock when this process ends, however it ends.
    """

    def __init__(self, directory: str) -> None:
        self._log = os.open(f"{directory}/journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._locks = os.open(f"{directory}/locks", os.O_RDWR | os.O_CREAT, 0o600)
        self._task = current_task()

    def say(self, what: str, *words: object) -> None:
        task = self._task
        line = " ".join(map(str, (what, task.id, task.token, task.attempt, identity(), *words)))
        os.write(self._log, f"{line}\n".encode())

    @contextlib.contextmanager
    def run(self) -> Any:
        """Record one execution, and whether it overlaps with another."""
        try:
            fcntl.lockf(self._locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, self._task.id)
        except OSError:
            self.say("overlap")
        self.say("start")
        yield
        self.say("end")
        os.close(self._locks)
        os.close(self._log)


def do_load(directory: str, kind: str) -> str:
    """Run one kind of task while the test kills processes."""
    journal = Journal(directory)
    with journal.run():
        LOAD[kind](journal)
    return kind


def _nap(journal: Journal) -> None:
    time.sleep(0.2)


def _long(journal: Journal) -> None:
    time.sleep(1.3)


def _burn(journal: Journal) -> None:
    deadline = time.monotonic() + 0.15
    while time.monotonic() < deadline:
        sum(range(10_000))


def _print(journal: Journal) -> None:
    for number in range(20):
        print(f"line {number} " + "x" * 5000)
        time.sleep(0.005)


def _resume(journal: Journal) -> None:
    """Store checkpoints. Each one that was stored must be found by the next attempt."""
    task = current_task()
    journal.say("found", task.saved or 0)
    for number in range(task.saved or 0, 8):
        time.sleep(0.03)
        task.checkpoint(number + 1)
        journal.say("stored", number + 1)
        task.progress(number + 1, 8)


def _steps(journal: Journal) -> None:
    for name in ("one", "two", "three"):
        current_task().step(name, _step, journal, name)
        journal.say("step-stored", name)


def _step(journal: Journal, name: str) -> str:
    journal.say("step", name)
    time.sleep(0.03)
    return name


def _family(journal: Journal) -> None:
    for apart in (False, True):
        left = subprocess.Popen(["sleep", "300"], start_new_session=apart)
        journal.say("started", identity(left.pid))
    time.sleep(0.1)


LOAD = {
    "short": lambda journal: None,
    "nap": _nap,
    "long": _long,
    "burn": _burn,
    "print": _print,
    "resume": _resume,
    "steps": _steps,
    "family": _family,
}


def do_fork_and_return() -> int:
    """Return from a forked copy, too, as if it were the child process."""
    child = os.fork()
    if child == 0:
        return -1
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def lines(file: Path) -> list[str]:
    """Return the lines of the file so far."""
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []
