"""How a run of the suite ends: it stops after --maxfail, counts skips by reason, and fails if a query was not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

CONFTEST = f"""
import sys
sys.path.insert(0, {str(TESTS)!r})
import query_coverage
from report import Report

def pytest_configure(config):
    query_coverage.install()
    config.pluginmanager.register(Report(config))
"""


def run(directory: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a suite of one file with our plugin. It passes no path, as ``make test`` does."""
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "pytest.ini").write_text("[pytest]\ntestpaths = .\n")
    (directory / "test_it.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=240)


MANY = """
import time, pytest

@pytest.mark.parametrize("number", range(400))
def test(number):
    assert number, "the first one fails"
    time.sleep(0.02)
    with open("run", "a") as file:
        file.write("x")
"""


def test_all_processes_stop_after_maxfail(tmp_path: Path) -> None:
    ended = run(tmp_path, MANY, "-n", "2", "--dist", "worksteal", "--maxfail", "1")
    assert ended.returncode == pytest.ExitCode.INTERRUPTED, ended.stdout
    ran = Path(tmp_path, "run")
    assert not ran.exists() or len(ran.read_text()) < 100


SKIPPING = """
import pytest

@pytest.mark.parametrize("number", range(5))
def test_skipped(number):
    pytest.skip("no such server" if number else "no compiler")

def test_failing():
    raise ValueError("in the test")
"""


def test_skips_are_counted_by_reason_before_the_failures(tmp_path: Path) -> None:
    shown = run(tmp_path, SKIPPING, "-n", "2").stdout
    assert "    4 no such server\n    1 no compiler\n" in shown
    assert shown.index("no such server") < shown.index("in the test")
    *_, failure, count, end = shown.split("\n")
    assert failure == "FAILED test_it.py::test_failing - ValueError: in the test"
    assert "1 failed, 5 skipped" in count
    assert end == ""


ONE_QUERY = """
from dbtaskqueue import TaskQueue

def test_one(tmp_path):
    TaskQueue(f"sqlite:///{tmp_path}/x").close()

def test_another():
    pass
"""
ABSENT = """
from servers import requirements
requirements.absent.add("postgresql")
"""


def test_a_complete_run_fails_if_a_query_was_not_run(tmp_path: Path) -> None:
    ended = run(tmp_path, ABSENT + ONE_QUERY, "-n", "2")
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED
    lines = ended.stdout.splitlines()
    assert "NO TEST RAN THE QUERY 'mark_lost' ON sqlite" in lines
    assert "NO TEST RAN THE QUERY 'has_schema' ON sqlite" not in lines, "it was run"
    assert "NO TEST RAN THE QUERY 'mark_lost' ON mariadb" in lines
    assert "ON postgresql" not in ended.stdout, "no server: its tests are skipped"


@pytest.mark.parametrize("options", [["-k", "one"], ["test_it.py"]])
def test_an_incomplete_run_may_leave_queries_out(tmp_path: Path, options: list[str]) -> None:
    ended = run(tmp_path, ONE_QUERY, *options)
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout
    assert "NO TEST RAN" not in ended.stdout
