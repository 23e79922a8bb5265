"""A Flask application in its programs: flask tasks, child processes, gunicorn."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from helpers import ended, until
from servers import requirements
from servers.ports import free_port

from dbtaskqueue import TaskQueue

requirements.library("flask", "flask_sqlalchemy")

pytestmark = pytest.mark.one_engine("the core decides what is stored")
WITHIN = 60.0

WSGI = """
from shop import create_app
app = create_app()
"""

SCRIPT = """
import click
from flask.cli import FlaskGroup
from shop import create_app

@click.group(cls=FlaskGroup, create_app=create_app)
def main(): pass

if __name__ == "__main__":
    main()
"""

SMALL = """
import os
from flask import Flask, current_app
from dbtaskqueue.integrations.flask import FlaskTaskQueue

app = Flask("small")
app.config["DBTASKQUEUE_URL"] = os.environ["SHOP_TASKS"]
tasks = FlaskTaskQueue(app)

@tasks.task(name="where")
def where():
    return [{version}, current_app.name, os.getpid()]
"""


def enqueue(queue: TaskQueue, function: str, *arguments: Any) -> Any:
    [task] = queue.submit([{"args": list(arguments), "kwargs": {}}], {}, function)
    return task


@pytest.mark.every_engine("children must not share connections that the factory has opened")
def test_child_processes_get_the_application_from_the_factory(
    shop: Any, config: dict[str, Any], programs: Any, url: str
) -> None:
    app = shop.create_app(**config)
    client = app.test_client()
    for _ in range(12):
        client.post("/orders")
    with TaskQueue(url, "shop") as queue:
        count = enqueue(queue, "count")  # defined by the factory
        options = ("--burst", "--concurrency", "4", "--queue", "shop", "--queue", "mails")
        code, _, errors = programs.flask("tasks", "worker", *options)
        assert (code, "executor=process functions=3" in errors) == (0, True), errors
        assert count.refresh().result == ["shop", 12]
        results = [task.result for task in queue.tasks() if task.function == "charge"]
        assert [result[0] for result in results] == ["shop"] * 12, errors
        assert len({result[2] for result in results}) == 1, "all were forked by the same process"
        assert queue.lane("mails").stats().done == 12
    with app.app_context():
        assert {order.state for order in shop.models.db.session.query(shop.models.Order)} == {"charged"}
        shop.models.db.session.remove()
        shop.models.db.engine.dispose()


@pytest.mark.parametrize("way", ["shop:create_app(TESTING=True)", "wsgi.py", "a script of its own"])
def test_other_ways_to_name_the_application(programs: Any, url: str, way: str, tmp_path: Path) -> None:
    Path(tmp_path, "wsgi.py").write_text(WSGI)
    Path(tmp_path, "script.py").write_text(SCRIPT)
    line = {"wsgi.py": ("flask",), "a script of its own": ("script",)}.get(way, ("flask", "--app", way))
    with TaskQueue(url, "shop") as queue:
        task = enqueue(queue, "count")
        with ended(programs.start(*line, "tasks", "worker", "--burst")) as worker:
            _, errors = worker.communicate(timeout=WITHIN)
        assert task.refresh().result == ["shop", 0], errors


def test_the_commands_of_the_application(programs: Any, url: str) -> None:
    with TaskQueue(url, "shop") as queue:
        enqueue(queue, "receipt", 7)
    assert json.loads(programs.flask("tasks", "list", "--json")[1])[0]["function"] == "receipt"
    assert programs.flask("tasks", "enqueue", "--function", "receipt", "[8]")[1] == "2\n"
    code, output, errors = programs.flask("tasks", "show", "77")
    assert (code, output, errors) == (1, "", "Error: there is no task 77\n")
    code, output, errors = programs.flask("tasks", "--help")
    assert (code, errors) == (0, "")
    assert output.startswith("Usage: python -m flask tasks [OPTIONS] COMMAND")
    assert "MODULE:NAME" not in programs.flask("tasks", "worker", "--help")[1]


def test_an_application_at_the_top_of_a_module(programs: Any, url: str, tmp_path: Path) -> None:
    Path(tmp_path, "small.py").write_text(SMALL.format(version=1))
    with TaskQueue(url) as queue:
        task = enqueue(queue, "where")
        with ended(programs.start("dbtaskqueue", "worker", "small:tasks", "--burst")) as worker:
            _, errors = worker.communicate(timeout=WITHIN)
        assert worker.returncode == 0, errors
        assert task.refresh().result[:2] == [1, "small"]
        assert task.result[2] != worker.pid


def test_reload(programs: Any, url: str, tmp_path: Path) -> None:
    requirements.library("watchfiles")
    module = Path(tmp_path, "small.py")
    module.write_text(SMALL.format(version=1))
    log = Path(tmp_path, "log")
    line = ("flask", "--app", "small", "tasks", "worker", "--reload", "--executor", "thread")
    with TaskQueue(url) as queue, open(log, "w") as out, ended(programs.start(*line, stderr=out)) as worker:

        def result() -> int:
            task = enqueue(queue, "where")
            until(lambda: task.refresh().state == "done", within=WITHIN, what=log.read_text())
            return int(task.result[0])

        assert result() == 1
        module.write_text(SMALL.format(version="2 +"))
        until(lambda: "the worker has ended and starts again" in log.read_text(), within=WITHIN)
        module.write_text(SMALL.format(version=3))
        assert result() == 3
        worker.terminate()
        assert worker.wait(WITHIN) == 0


# -- a web server ----------------------------------------------------------------------------------


def post(address: str) -> dict[str, Any] | int:
    """Send an order. Return the answer, or the status of a refusal."""
    try:
        with urlopen(Request(address, method="POST"), timeout=WITHIN) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except HTTPError as error:
        return error.code


@contextlib.contextmanager
def gunicorn(programs: Any) -> Iterator[str]:
    """Run the shop in two processes. Yield its URL."""
    address = f"127.0.0.1:{free_port()}"
    with ended(programs.start("gunicorn", "shop:create_app()", "--bind", address, "--workers", "2")) as server:

        def answers() -> bool:
            assert server.poll() is None, server.communicate()
            with contextlib.suppress(OSError):
                return post(f"http://{address}/orders?refuse=1") == 409
            return False

        until(answers, within=WITHIN)
        yield f"http://{address}"
        server.terminate()
        assert server.wait(WITHIN) == 0


def test_two_processes_of_gunicorn_and_a_worker(programs: Any, url: str) -> None:
    requirements.library("gunicorn")
    with gunicorn(programs) as address, ended(programs.start("flask", "--app", "shop", "tasks", "worker")) as worker:
        paths = [f"{address}/orders{'?refuse=1' if number % 3 == 0 else ''}" for number in range(30)]
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(post, paths))
        accepted = [answer for answer in answers if isinstance(answer, dict)]
        assert [answer for answer in answers if not isinstance(answer, dict)] == [409] * 10
        with TaskQueue(url, "shop") as queue:
            until(lambda: queue.stats().done == 20, within=WITHIN)
            assert {task.id for task in queue.tasks()} == {answer["task"] for answer in accepted}
            orders = [task.payload["args"][0] for task in queue.tasks()]
            assert sorted(orders) == sorted(answer["order"] for answer in accepted)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(WITHIN) == 0
