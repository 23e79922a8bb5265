"""The place of a process, and whether another process of the same place still exists."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import ended, run_python, spawn

from dbtaskqueue._system import place
from dbtaskqueue._system.place import Place, exists, here

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")


def test_the_place_of_this_process() -> None:
    found = here()
    assert found is not None
    assert found == here()
    assert found.boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert found.namespace == os.readlink("/proc/self/ns/pid")
    assert found.started > 0


def test_another_process_is_in_the_same_place() -> None:
    mine = here()
    code = "from dbtaskqueue._system.place import here; print(*here())"
    boot, namespace, started = run_python(code).split()
    assert mine is not None
    assert (boot, namespace) == (mine.boot, mine.namespace)
    assert int(started) >= mine.started


def test_this_process_exists() -> None:
    found = here()
    assert found is not None
    assert exists(os.getpid(), found.started) is True


def test_a_pid_that_was_reused() -> None:
    found = here()
    assert found is not None
    assert exists(os.getpid(), found.started - 1) is False


def test_an_ended_process_and_a_zombie() -> None:
    with ended(
        spawn("from dbtaskqueue._system.place import here; print(here().started, flush=True); input()")
    ) as process:
        assert process.stdout is not None
        started = int(process.stdout.readline())
        assert exists(process.pid, started) is True
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert exists(process.pid, started) is False  # a zombie runs nothing
        process.wait()
        assert exists(process.pid, started) is False


@pytest.mark.parametrize("pid", [0, 2**22 + 1, 2**31 - 1, 10**30])
def test_an_impossible_pid(pid: int) -> None:
    assert exists(pid, 1) is not True


def test_without_a_readable_proc_no_process_is_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(pid: str) -> tuple[int, str, int]:
        raise PermissionError

    monkeypatch.setattr(place, "_stat", unreadable)
    assert here() is None
    assert exists(os.getpid(), 1) is None


def test_a_proc_of_another_namespace_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_stat", lambda pid: (os.getpid() + 1, "S", 100))
    assert here() is None


def test_a_process_that_proc_hides_is_not_presumed_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """With /proc mounted with hidepid, the kernel still knows the pid."""

    def hidden(pid: str) -> tuple[int, str, int]:
        raise FileNotFoundError

    monkeypatch.setattr(place, "_stat", hidden)
    assert exists(os.getpid(), 1) is None


def test_a_process_name_with_spaces_and_brackets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
import ctypes
ctypes.CDLL(None).prctl(15, b'a) R 1 (b', 0, 0, 0)
from dbtaskqueue._system.place import exists, here
import os
print(exists(os.getpid(), here().started))
"""
    assert run_python(code) == "True\n"


def test_the_initial_namespace() -> None:
    assert Place("boot", "pid:[4026531836]", 1).is_initial
    assert not Place("boot", "pid:[4026532000]", 1).is_initial
