"""The systemd unit and the container in examples/ give the worker what it needs, and their times match its options."""

from __future__ import annotations

import configparser
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from helpers import ended, until
from servers import requirements
from servers.mariadb import MariaDBServer
from servers.ports import free_port
from servers.postgresql import PostgresServer

from dbtaskqueue import TaskQueue, Worker
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


# -- examples/kubernetes ---------------------------------------------------------------------------


def manifest(name: str) -> Any:
    """Return the object in a file of examples/kubernetes."""
    requirements.library("yaml")
    import yaml

    return yaml.safe_load(Path(EXAMPLES, "kubernetes", f"{name}.yaml").read_text())


def pod_of(name: str) -> Any:
    spec = manifest(name)["spec"]
    return spec.get("jobTargetRef", spec)["template"]["spec"]


PODS = pytest.mark.parametrize("name", ["worker", "scaledjob"])


@PODS
def test_the_pod_gets_the_time_to_stop_that_its_worker_needs(name: str) -> None:
    pod = pod_of(name)
    [container] = pod["containers"]
    period = pod["terminationGracePeriodSeconds"]
    assert time_to_stop(container["args"]) <= period <= time_to_stop(container["args"]) + 60
    assert pod["shareProcessNamespace"] is True


@pytest.mark.parametrize("name", ["worker", "scaledjob", "migrate"])
def test_the_pod_gets_the_url_from_a_secret(name: str) -> None:
    [container] = pod_of(name)["containers"]
    [variable] = container["env"]
    assert variable == {"name": "DBTASKQUEUE_URL", "valueFrom": {"secretKeyRef": {"name": "tasks", "key": "url"}}}
    command, *options = container["args"]
    with main.commands[command].make_context(command, list(options)):
        pass


def test_the_probes_of_kubernetes_are_answered(tmp_path: Path) -> None:
    """The worker of the example, with its arguments, on another port."""
    [container] = pod_of("worker")["containers"]
    port = free_port()
    assert (container["args"][-2:], container["ports"][0]["containerPort"]) == (["--http", "0.0.0.0:8080"], 8080)
    worker = subprocess.Popen(
        [sys.executable, "-m", "dbtaskqueue", *container["args"][:-1], f"127.0.0.1:{port}"],
        cwd=EXAMPLES / "docker",
        env={**os.environ, "DBTASKQUEUE_URL": f"sqlite:///{tmp_path}/tasks.sqlite", "PYTHONDONTWRITEBYTECODE": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    with ended(worker):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            request = container[kind]["httpGet"]
            assert request["port"] == container["ports"][0]["name"]
            until(lambda path=request["path"]: _status(f"http://127.0.0.1:{port}{path}") == 200, within=60)
        worker.terminate()
        assert worker.wait(60) == 0


def _status(url: str) -> int:
    try:
        with urlopen(url, timeout=10) as answer:
            return int(answer.status)
    except OSError:
        return 0


def test_a_pod_of_the_scaled_job_runs_one_task_and_ends(tmp_path: Path) -> None:
    [container] = pod_of("scaledjob")["containers"]
    words = [word.replace("45s", "0s") for word in container["args"]]
    url = f"sqlite:///{tmp_path}/tasks.sqlite"
    with TaskQueue(url, "encode") as queue:
        queue.submit([{"args": [1], "kwargs": {}}] * 2, {}, "count")
        for done in (1, 2):
            subprocess.run(
                [sys.executable, "-m", "dbtaskqueue", *words],
                cwd=EXAMPLES / "docker",
                env={**os.environ, "DBTASKQUEUE_URL": url, "PYTHONDONTWRITEBYTECODE": "1"},
                check=True,
                timeout=60,
                capture_output=True,
            )
            assert queue.stats().done == done


def test_a_pod_of_the_scaled_job_stays_until_it_has_rescued_the_task_of_a_lost_one() -> None:
    [container] = pod_of("scaledjob")["containers"]
    command, *words = container["args"]
    with main.commands[command].make_context(command, list(words)) as context:
        options = context.params
    assert options["idle_timeout"] >= options["lease"] + REST / 3
    page = Path(EXAMPLES.parent, "docs", "howto", "kubernetes.md").read_text()
    assert f"\ndbtaskqueue {' '.join(container['args'])}\n" in page


def mariadb_trigger() -> dict[str, Any]:
    """Return the trigger for MariaDB, which is in the documentation only."""
    requirements.library("yaml")
    import yaml

    page = Path(EXAMPLES.parent, "docs", "howto", "kubernetes.md").read_text()
    [block] = [text for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "type: mysql" in text]
    [trigger] = yaml.safe_load(block)["triggers"]
    return dict(trigger["metadata"])


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_keda_counts_tasks_that_are_due_or_running(engine: str) -> None:
    [trigger] = manifest("scaledjob")["spec"]["triggers"]
    assert pod_of("scaledjob")["containers"][0]["args"][1:4] == ["app:queue", "--queue", "encode"]
    query = (mariadb_trigger() if engine == "mariadb" else trigger["metadata"])["query"]
    make = MariaDBServer if engine == "mariadb" else PostgresServer
    with make(durable=False) as server, TaskQueue(server.url(), "encode") as queue:

        def count() -> int:
            with closing(server.connect("test")) as connection, closing(connection.cursor()) as cursor:
                cursor.execute(query)
                [row] = cursor.fetchall()
            [number] = row
            return int(number)

        assert count() == 0
        [first, *_] = queue.enqueue_many(range(3))
        queue.enqueue("later", start_in=3600)
        queue.enqueue("blocked", after=first)
        queue.lane("other").enqueue("elsewhere")
        assert count() == 3
        [task, other] = queue.fetch(2)
        task.start()
        assert count() == 3
        queue.pause()
        assert count() == 0
        queue.resume()
        task.finish()
        assert count() == 3, "a child of the finished task is due"
        other.start()
        other.fail("no good", retry=False)
        assert count() == 2
        queue.close()
