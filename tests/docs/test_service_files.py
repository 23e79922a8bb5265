"""The systemd unit and the container in examples/ give the worker what it needs, and their times match its options."""

from __future__ import annotations

import configparser
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dbtaskqueue import Worker
from dbtaskqueue._executors.process.executor import _START_TIME
from dbtaskqueue._formats.quantities import seconds
from dbtaskqueue._maintenance.supervision import HANGS
from dbtaskqueue.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
UNITS = pytest.mark.parametrize("unit", sorted((EXAMPLES / "systemd").glob("*.service")), ids=lambda path: path.stem)
REST = 30.0
"""Seconds that a worker may need after the drain, to store outcomes and to end its helper processes."""


def service_of(unit: Path) -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(unit)
    return parser["Service"]


def compose() -> str:
    return Path(EXAMPLES, "docker", "compose.yaml").read_text()


def time_to_stop(words: Sequence[str]) -> float:
    """Return the seconds that a worker with this command line may need to stop."""
    name, *options = words
    command = main.commands["worker"]
    assert name == "worker"
    with command.make_context("worker", list(options)) as context:  # this refuses wrong options
        return float(context.params["drain_timeout"] + context.params["cancel_grace"]) + REST


@UNITS
def test_the_unit_gives_the_time_to_stop_that_its_worker_needs(unit: Path) -> None:
    service = service_of(unit)
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/dbtaskqueue")
    assert time_to_stop(words) <= seconds(service["TimeoutStopSec"]) <= time_to_stop(words) + 60


def test_the_container_gets_the_time_to_stop_that_its_worker_needs() -> None:
    [words] = re.findall(r"^ +command: (\[.*\])$", compose(), re.MULTILINE)
    [period] = re.findall(r"^ +stop_grace_period: (\w+)$", compose(), re.MULTILINE)
    assert time_to_stop(json.loads(words)) <= seconds(period) <= time_to_stop(json.loads(words)) + 60


def test_the_default_time_to_stop_of_systemd_is_enough_for_the_defaults() -> None:
    """DefaultTimeoutStopSec is 90 s; Docker's 10 s are not enough, as docs/howto/containers.md says."""
    assert 10 < time_to_stop(["worker", "app:queue"]) <= 90


def test_the_command_has_the_defaults_of_the_library() -> None:
    library = inspect.signature(Worker).parameters
    with main.commands["worker"].make_context("worker", ["app:queue"]) as context:
        for name in ("concurrency", "lease", "drain_timeout", "cancel_grace", "tasks_per_child", "allow_commands"):
            assert context.params[name] == library[name].default, name
        assert context.params["executor"] == "process"


@UNITS
def test_the_unit_has_the_settings_that_the_worker_needs(unit: Path) -> None:
    service = service_of(unit)
    expected = {"Type": "notify", "KillMode": "mixed", "NotifyAccess": "main", "OOMPolicy": "continue"}
    assert {name: service[name] for name in expected} == expected
    assert service["Restart"] == "always"
    assert seconds(service["TimeoutStartSec"]) > _START_TIME
    assert 10 <= seconds(service["WatchdogSec"]) <= HANGS


@UNITS
def test_systemd_understands_the_unit(unit: Path, tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("NO SYSTEMD HERE: whether it understands the unit is not tested")
    text = unit.read_text().replace("/srv/app/venv/bin/dbtaskqueue", sys.executable).replace("User=tasks", "User=root")
    Path(tmp_path, unit.name).write_text(text.replace("/srv/app", str(tmp_path)))
    line = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / unit.name)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done
    assert unit.name not in done.stderr, done.stderr


def test_the_image_runs_the_worker_without_a_shell() -> None:
    text = Path(EXAMPLES, "docker", "Dockerfile").read_text()
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)
    [command] = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    assert json.loads(entry) == ["dbtaskqueue"]
    assert time_to_stop(json.loads(command)) > 0
    assert re.search(r"^ +init: true$", compose(), re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", text, re.MULTILINE)
