"""What each source knows about processes: Linux itself, psutil, and none."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from helpers import ended, run_python, spawn, until

from dbtaskqueue._system import linux, psutil_
from dbtaskqueue._system.contract import NO_NAMESPACES, Place, System, peak_memory
from dbtaskqueue._system.linux import Linux
from dbtaskqueue._system.psutil_ import Psutil

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
SOURCES = [Linux(), Psutil()]


@pytest.fixture(params=SOURCES, ids=lambda source: source.name)
def source(request: pytest.FixtureRequest) -> System:
    """Return each source that can see processes."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def place(source: System) -> Place:
    """Return the place of this process."""
    found = source.here()
    assert found is not None
    return found


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    """Start a process that leads a group, with one child in the group and one in its own session."""
    code = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
children = [subprocess.Popen(sleep, start_new_session=new) for new in (False, True)]
print(*(child.pid for child in children), flush=True)
input()
for child in children:
    child.kill()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        process.communicate("\n")


def read_pids(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(pid) for pid in process.stdout.readline().split()]


# -- liveness -------------------------------------------------------------------------------------


def test_the_place_of_a_process_does_not_change(source: System, place: Place) -> None:
    assert source.here() == place
    assert place.started > 0


def test_another_process_is_in_the_same_place(source: System, place: Place) -> None:
    code = "from dbtaskqueue._system.place import here; print(*here())"
    boot, namespace, started = run_python(code, DBTASKQUEUE_SYSTEM=source.name).split()
    assert (boot, namespace) == (place.boot, place.namespace)
    assert int(started) >= place.started


def test_this_process_exists(source: System, place: Place) -> None:
    assert source.exists(os.getpid(), place.started) is True


def test_a_pid_that_another_process_has_now_is_not_alive(source: System, place: Place) -> None:
    """psutil cannot tell a reused pid from a changed clock, so the heartbeat decides."""
    expected = None if source.name == "psutil" else False
    assert source.exists(os.getpid(), place.started - 1) is expected


def test_a_process_that_ended_does_not_exist_even_as_a_zombie(source: System) -> None:
    code = "from dbtaskqueue._system.place import here; print(here().started, flush=True); input()"
    with ended(spawn(code, DBTASKQUEUE_SYSTEM=source.name)) as process:
        assert process.stdout is not None
        started = int(process.stdout.readline())
        assert source.exists(process.pid, started) is True
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert source.exists(process.pid, started) is False
        process.wait()
        assert source.exists(process.pid, started) is False


@pytest.mark.parametrize("pid", [0, 2**22 + 1, 2**31 - 1, 10**30])
def test_an_impossible_pid_does_not_exist(source: System, pid: int) -> None:
    assert source.exists(pid, 1) is not True


def test_the_places_of_sources_differ() -> None:
    """A process that uses one source judges a process with another by its heartbeat."""
    first, second = (source.here() for source in SOURCES)
    assert first is not None
    assert second is not None
    assert first.boot != second.boot


def test_the_initial_namespace_is_the_machines_own() -> None:
    assert Place("boot", "pid:[4026531836]", 1).is_initial
    assert Place("boot", NO_NAMESPACES, 1).is_initial
    assert not Place("boot", "pid:[4026532000]", 1).is_initial


def test_psutil_that_fails_leaves_the_decision_to_the_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(process: psutil.Process) -> int:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setattr(psutil_, "_started", denied)
    assert Psutil().here() is None
    assert Psutil().exists(os.getpid(), 1) is None


def test_linux_reads_the_boot_id_and_the_namespace() -> None:
    place = Linux().here()
    assert place is not None
    assert place.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert place.namespace == os.readlink("/proc/self/ns/pid")


def test_linux_without_a_readable_proc_knows_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(pid: str) -> tuple[int, str, int]:
        raise PermissionError

    monkeypatch.setattr(linux, "_stat", unreadable)
    assert Linux().here() is None
    assert Linux().exists(os.getpid(), 1) is None


def test_a_proc_of_another_namespace_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_stat", lambda pid: (os.getpid() + 1, "S", 100))
    assert Linux().here() is None


def test_a_process_that_proc_hides_is_not_presumed_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With /proc mounted with hidepid, the kernel still knows the pid."""

    def hidden(pid: str) -> tuple[int, str, int]:
        raise FileNotFoundError

    monkeypatch.setattr(linux, "_stat", hidden)
    assert Linux().exists(os.getpid(), 1) is None


def test_linux_reads_a_process_name_with_spaces_and_brackets() -> None:
    code = """
import ctypes
ctypes.CDLL(None).prctl(15, b'a) R 1 (b', 0, 0, 0)
from dbtaskqueue._system.place import exists, here
import os
print(exists(os.getpid(), here().started))
"""
    assert run_python(code) == "True\n"


# -- a snapshot ------------------------------------------------------------------------------------


def test_a_family_has_descendants_and_members_of_the_group(source: System, parent: subprocess.Popen[str]) -> None:
    children = read_pids(parent)
    family = {proc.pid: proc for proc in source.family(parent.pid)}
    assert set(family) == {parent.pid, *children}
    assert [family[pid].group for pid in children] == [parent.pid, children[1]]
    assert {family[pid].parent for pid in children} == {parent.pid}
    assert source.memory(family) > source.memory([parent.pid]) > 1_000_000


def test_the_cpu_time_of_a_process(source: System) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    with ended(spawn(code)) as process:
        read_pids(process)
        assert 0.25 <= source.cpu(source.processes()[process.pid]) < 5


def test_children_without_zombies(source: System, parent: subprocess.Popen[str]) -> None:
    assert parent.pid in source.children()
    parent.kill()
    os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
    assert parent.pid not in source.children()
    for pid in read_pids(parent):
        os.kill(pid, signal.SIGKILL)


def test_marked_processes_are_killed(source: System) -> None:
    mark = {"DBTASKQUEUE_TEST_MARK": f"{os.getpid()}-{time.monotonic_ns()}"}
    with ended(spawn("input()", **mark)) as marked, ended(spawn("input()")) as other:
        name, value = next(iter(mark.items()))
        until(lambda: source.has_mark(marked.pid, f"{name}={value}"))  # the mark is visible after exec
        source.kill_marked(f"{name}={value}")
        assert marked.wait(timeout=60) == -signal.SIGKILL
        assert other.poll() is None


def test_the_type_of_a_file_system(source: System) -> None:
    assert source.file_system("/proc/self") == "proc"


# -- any source ------------------------------------------------------------------------------------

REAP = """
import os, signal, sys
from dbtaskqueue._system.processes import system
assert not system.has_children()
pid = os.fork()
if pid == 0:
    signal.pause()
assert system.has_children()
seen = []
assert system.reap(seen.append) is None
os.kill(pid, signal.SIGKILL)
while (found := system.reap(seen.append)) is None:
    pass
assert seen == [pid] == [found[0]]
assert os.waitstatus_to_exitcode(found[1]) == -signal.SIGKILL
assert found[2].ru_maxrss > 0
assert not system.has_children()
try:
    system.reap(seen.append)
except ChildProcessError:
    print("none", system.name)
"""


@pytest.mark.parametrize("name", ["linux", "psutil", "none"])
def test_children_are_reaped(name: str) -> None:
    assert run_python(REAP, DBTASKQUEUE_SYSTEM=name) == f"none {name}\n"


@pytest.mark.parametrize("source", [*SOURCES, System()], ids=lambda source: source.name)
def test_an_anonymous_file(source: System) -> None:
    fd = source.anonymous_file()
    try:
        os.ftruncate(fd, 4096)
        assert os.fstat(fd).st_nlink == 0
        assert os.fstat(fd).st_size == 4096
    finally:
        os.close(fd)


def test_a_system_without_a_source_reports_nothing_wrong() -> None:
    system = System()
    assert system.here() is None
    assert system.exists(os.getpid(), 1) is None
    assert not system.sees_processes
    assert (system.processes(), system.family(os.getpid()), system.children()) == ({}, [], set())
    assert system.memory([os.getpid()]) == 0
    system.kill_marked("A=B")
    assert system.file_system("/") is None


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes(monkeypatch: pytest.MonkeyPatch, platform: str, unit: int) -> None:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    monkeypatch.setattr(sys, "platform", platform)
    assert peak_memory(usage) == usage.ru_maxrss * unit


CHOICE = """
import sys
if sys.argv[2] == "with":
    import psutil
else:
    sys.modules["psutil"] = None
sys.platform = sys.argv[1]
from dbtaskqueue._system.processes import system
print(system.name)
"""


@pytest.mark.parametrize(
    ("platform", "psutil", "name"),
    [
        ("linux", "with", "linux"),
        ("linux", "without", "linux"),
        ("darwin", "with", "psutil"),
        ("darwin", "without", "none"),
    ],
)
def test_the_source_is_chosen_by_the_platform(platform: str, psutil: str, name: str) -> None:
    assert run_python(CHOICE, platform, psutil, DBTASKQUEUE_SYSTEM="") == f"{name}\n"
