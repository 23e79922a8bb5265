"""Virtual environments with other versions of libraries, or with another Python. Each is made once in a run.

python = environment("sqlalchemy==2.0.0", python=newest_python(at_least=(3, 12)))
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pages import ROOT

CACHE = Path(os.environ.get("DBTASKQUEUE_TEST_ENVIRONMENTS") or Path(tempfile.gettempdir(), "dbtaskqueue-environments"))
"""Where they are kept between runs. An environment has a name that depends on what is in it."""
PATIENCE = 500.0
"""Seconds in which an environment must be installed."""


@functools.cache
def pythons() -> dict[tuple[int, int], str]:
    """Return the interpreters of this machine by version, this one first."""
    found = {sys.version_info[:2]: sys.executable}
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for minor in (11, 12, 13, 14):
        candidates = [shutil.which(f"python3.{minor}"), *map(str, (root / "versions").glob(f"3.{minor}.*/bin/python"))]
        for candidate in filter(None, candidates):
            command = [candidate, "-c", "import sqlite3, sys; print(*sys.version_info[:2])"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.stdout.split() == ["3", str(minor)]:
                found.setdefault((3, minor), candidate)
    return found


def newest_python(at_least: tuple[int, int]) -> str | None:
    """Return this interpreter if it is new enough, else the newest one here that is, else None."""
    if sys.version_info[:2] >= at_least:
        return sys.executable
    known = pythons()
    return known[max(known)] if max(known) >= at_least else None


@functools.cache
def pip() -> tuple[str, ...]:
    """Return the command of a pip that can install into other environments. The tests' own may have none."""
    for candidate in (sys.executable, f"{sys.base_prefix}/bin/python3", *pythons().values()):
        command = candidate, "-m", "pip"
        if subprocess.run([*command, "--version"], capture_output=True, check=False).returncode == 0:
            return command
    raise AssertionError("no Python here has pip")


def environment(*requirements: str, python: str = sys.executable, editable: bool = True) -> str:
    """Return the Python of a virtual environment with these packages, and dbtaskqueue unless ``editable`` is false.

    The packages are those of the checkout that the tests are in. An environment is used again by later tests and runs.
    """
    words = [python, *sorted(requirements), str(ROOT) if editable else ""]
    home = CACHE / hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    home.parent.mkdir(parents=True, exist_ok=True)
    ready = home / "ready"
    with open(f"{home}.lock", "w") as lock:  # other processes of this run may want the same one
        fcntl.flock(lock, fcntl.LOCK_EX)
        inside = str(home / "bin" / "python")
        if not ready.exists():
            shutil.rmtree(home, ignore_errors=True)
            _run(python, "-m", "venv", "--without-pip", str(home))
            wanted = [*requirements, *(["--editable", str(ROOT)] if editable else [])]
            _run(*pip(), "--python", inside, "install", "--quiet", "--no-cache-dir", *wanted)
            ready.touch()
    return inside


def _run(*command: str) -> None:
    variables = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=variables, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
