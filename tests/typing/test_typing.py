"""Type checkers accept every ``assert_type`` in a user's program and report exactly its marked lines."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import source_of

PROGRAM = Path(__file__).parent / "program.py"
MARKED = {number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if "# error: " in line}


def require(checker: str) -> None:
    """Skip the test if the type checker is not installed; fail it in CI."""
    if importlib.util.find_spec(checker) is None:
        missing = f"{checker} is not installed: the types that users see were not checked"
        if "DBTASKQUEUE_TEST_REQUIRE" in os.environ:
            pytest.fail(missing)
        pytest.skip(missing)


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy(tmp_path: Path) -> None:
    require("mypy")
    options = ["--strict", "--config-file=", "--python-version=3.11", f"--cache-dir={tmp_path}"]
    output = run("mypy", *options, PROGRAM, MYPYPATH=str(source_of().parent))
    assert {int(line) for line in re.findall(r"program\.py:(\d+): error: ", output)} == MARKED, output


def test_pyright(tmp_path: Path) -> None:
    require("basedpyright")
    settings = {
        "include": [str(PROGRAM)],
        "extraPaths": [str(source_of().parent)],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    config = tmp_path / "pyrightconfig.json"
    config.write_text(json.dumps(settings))
    found = json.loads(run("basedpyright", "--project", config, "--pythonpath", sys.executable, "--outputjson"))
    messages = found["generalDiagnostics"]
    errors = {each["range"]["start"]["line"] + 1 for each in messages if each["severity"] == "error"}
    assert errors == MARKED, messages
