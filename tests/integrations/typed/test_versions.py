"""The oldest and the newest versions of both libraries, and other Pythons: with ``--all-engines``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers import python_path
from integrations.environments import environment, pythons
from servers.requirements import library

library("msgspec", "pydantic")

SAMPLES = Path(__file__).with_name("samples.py")
OLDEST = "msgspec==0.19.0", "pydantic==2.11.0"
NEWEST = "msgspec", "pydantic"


def misread(python: str) -> str:
    """Return which samples do not come back with the libraries of a Python."""
    command = [python, SAMPLES]
    path = {"PYTHONPATH": python_path(), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_samples_come_back_with_the_libraries_here() -> None:
    assert misread(sys.executable) == ""


@pytest.mark.parametrize("requirements", [OLDEST, NEWEST], ids=["oldest", "newest"])
def test_oldest_and_newest_versions(requirements: tuple[str, ...], request: pytest.FixtureRequest) -> None:
    if not request.config.option.all_engines:
        pytest.skip("environments are made with --all-engines only")
    assert misread(environment(*requirements)) == ""


def test_another_python(request: pytest.FixtureRequest) -> None:
    if not request.config.option.all_engines:
        pytest.skip("environments are made with --all-engines only")
    others = {version: python for version, python in pythons().items() if version > sys.version_info[:2]}
    for version, python in sorted(others.items()):
        if version < (3, 14):
            assert misread(environment(*NEWEST, python=python)) == "", version
