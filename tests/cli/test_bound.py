"""A command line for a given queue, as the integrations of web frameworks add it to their own command lines."""

from __future__ import annotations

import atexit
import logging
import signal
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from dbtaskqueue import TaskQueue
from dbtaskqueue.cli import command_line_for


@pytest.fixture
def queue(tmp_path: Path) -> TaskQueue:
    queue = TaskQueue(f"sqlite:///{tmp_path}/app.sqlite", open=False)
    queue.task(name="double")(lambda number: number * 2)
    return queue


def run(group: click.Command, *words: str) -> Result:
    return CliRunner().invoke(group, words)


def test_a_worker_runs_the_tasks_of_the_queue(queue: TaskQueue) -> None:
    ours = queue.functions.find("double").enqueue(4)  # type: ignore[union-attr, attr-defined]
    other = queue.functions.find("double").using(queue="mail").enqueue(5)  # type: ignore[union-attr, attr-defined]
    group = command_line_for(queue)
    assert run(group, "worker", "--burst", "--executor", "thread").exit_code == 0
    assert (ours.refresh().result, other.refresh().result) == (8, None)
    group = command_line_for(queue, queues=["default", "mail"])
    assert run(group, "worker", "--burst", "--executor", "thread").exit_code == 0
    assert other.refresh().result == 10
    queue.close()


def test_a_worker_restores_the_handlers_of_signals(queue: TaskQueue) -> None:
    """A test run that calls it can still be interrupted. A handler that stays ignores Ctrl-C and SIGTERM."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    queue.enqueue("hello")
    run(command_line_for(queue), "worker", "--burst", "--executor", "thread")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    queue.close()


def test_a_worker_that_is_the_whole_process_ignores_signals_until_it_exits(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The words of its command line are the last ones of the process: flask --app shop tasks worker --burst."""
    numbers = signal.SIGTERM, signal.SIGINT
    before = {number: signal.getsignal(number) for number in numbers}
    queue.enqueue("hello")
    words = ["worker", "--burst", "--executor", "thread"]
    monkeypatch.setattr(sys, "argv", ["flask", "--app", "shop", "tasks", *words])
    registered: list[object] = []
    monkeypatch.setattr(atexit, "register", lambda *call: registered.append(call))
    try:
        run(command_line_for(queue), *words)
        assert all(signal.getsignal(number) is not before[number] for number in numbers)
        assert registered
    finally:
        for number in numbers:
            signal.signal(number, before[number])
    queue.close()


def test_the_queue_may_come_from_a_function(queue: TaskQueue) -> None:
    queue.enqueue("hello")
    assert "pending" in run(command_line_for(lambda: queue), "list").stdout
    queue.close()


def test_the_options_that_name_a_database_or_code_are_gone(queue: TaskQueue) -> None:
    group = command_line_for(queue, "app tasks")
    for words in (
        ["list", "--url", "sqlite:///other.sqlite"],
        ["worker", "app:queue"],
        ["demo"],
        ["completion", "bash"],
    ):
        assert run(group, *words).exit_code == 2
    for words in (["worker", "--help"], ["schedules", "sync", "--help"], ["--help"]):
        text = run(group, *words).stdout
        assert "Usage: " in text
        assert "MODULE:NAME" not in text
        assert "--url" not in text
    assert "else the queue of the application]" in " ".join(run(group, "worker", "--help").stdout.split())
    several = command_line_for(queue, queues=["default", "mail"])
    assert "else all queues of the application]" in " ".join(run(several, "worker", "--help").stdout.split())


def test_schedules_of_the_queue_are_stored(queue: TaskQueue) -> None:
    queue.periodic(every=60, name="each minute", args=(1,))(queue.functions.find("double"))  # type: ignore[arg-type]
    assert "1 schedule stored: each minute" in run(command_line_for(queue), "schedules", "sync").stdout
    assert [schedule.name for schedule in queue.schedules()] == ["each minute"]
    queue.close()


def test_a_suggested_command_begins_with_the_program(queue: TaskQueue) -> None:
    task = queue.enqueue("x" * 5000)
    text = run(command_line_for(queue, program=["flask", "tasks"]), "doctor").stdout
    assert "oldest due: flask tasks worker\n" in text  # without MODULE:NAME
    queue.fetch()[0].start()
    text = run(command_line_for(queue, program=["flask", "tasks"]), "doctor").stdout
    assert task.id
    assert "dbtaskqueue --url" not in text
    queue.close()


def test_a_missing_schema_names_the_command_of_the_application(tmp_path: Path) -> None:
    file = tmp_path / "app.sqlite"
    queue = TaskQueue(f"sqlite:///{file}", open=False, create=False)
    queue.task(name="double")(lambda number: number * 2)
    own, django = {"program": ["flask", "tasks"]}, {"program": [], "migrate": ["python", "manage.py", "migrate"]}
    for command in (["list"], ["worker", "--burst"], ["enqueue", "1"], ["schedules", "sync"]):
        for options, expected in ((own, "flask tasks migrate"), (django, "python manage.py migrate")):
            result = run(command_line_for(queue, **options), *command)  # type: ignore[arg-type]
            assert (result.exit_code, result.output) == (1, f"Error: {file} does not exist; run: {expected}\n")
    assert not file.exists()


def test_errors_are_one_line_inside_of_another_command_line(queue: TaskQueue) -> None:
    queue.open()
    outer = click.Group("app", commands={"tasks": command_line_for(queue, "tasks")})
    result = run(outer, "tasks", "show", "12345")
    assert result.exit_code == 1
    assert result.output == "Error: there is no task 12345\n"
    queue.close()


def test_an_application_without_functions_has_nothing_to_run(tmp_path: Path) -> None:
    queue = TaskQueue(f"sqlite:///{tmp_path}/empty.sqlite", open=False)
    result = run(command_line_for(queue), "worker", "--burst")
    assert (result.exit_code, "no task functions" in result.output) == (1, True)


def test_logging_stays_as_the_program_has_set_it_up(queue: TaskQueue) -> None:
    before = logging.getLogger("dbtaskqueue").level, list(logging.getLogger().handlers)
    run(command_line_for(queue), "worker", "--burst", "--executor", "thread", "--log-level", "error")
    assert (logging.getLogger("dbtaskqueue").level, logging.getLogger().handlers) == before
    queue.close()
