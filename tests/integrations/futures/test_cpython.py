"""CPython's own executor tests pass with QueueExecutor: see cpython_suite.py, which another process runs.

The interpreter that runs the tests may have no package ``test``, as in Debian. Then the newest one here that has it
runs them. With --all-engines, every one does.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from ..environments import pythons
from .cpython_suite import LEFT_OUT, SUITE

PASSING = {"thread": 28, "process": 26}


@functools.cache
def with_suite() -> list[str]:
    """Return the interpreters that have CPython's tests, this one or else the newest first."""
    here = sys.version_info[:2]
    found = [
        (version == here, version, python)
        for version, python in pythons().items()
        if subprocess.run([python, "-c", f"import {SUITE}"], capture_output=True, check=False).returncode == 0
    ]
    return [python for _, _, python in sorted(found, reverse=True)]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_the_tests_of_cpython_pass(kind: str, request: pytest.FixtureRequest) -> None:
    interpreters = with_suite()
    if not interpreters:
        pytest.skip(f"NO PYTHON HERE HAS {SUITE}: QueueExecutor IS NOT TESTED WITH IT")
    for python in interpreters if request.config.option.all_engines else interpreters[:1]:
        path = os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)])
        done = subprocess.run(
            [python, str(Path(__file__).parent / "cpython_suite.py"), kind],
            capture_output=True,
            text=True,
            timeout=500,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
        assert done.returncode == 0, f"{python}\n{done.stderr}"
        found = json.loads(done.stdout.splitlines()[-1])
        assert [outcome for outcome in found["outcomes"].values() if outcome != "passed"] == [], python
        assert len(found["outcomes"]) >= PASSING[kind], (python, sorted(found["outcomes"]))
        assert found["left_out"].items() <= LEFT_OUT[kind].items()
