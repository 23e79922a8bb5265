"""What holds for every command: usage, variables, errors in one line."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli.running import COMMAND, Cli, assert_explained, assert_wrong_usage

from dbtaskqueue import TaskQueue
from dbtaskqueue.cli import main

PRODUCING_AND_WORKING = ["enqueue", "worker"]
LOOKING = [("list",), ("show", "1"), ("logs", "1"), ("stats",), ("workers",), ("watch",)]
OPERATING = [
    ("retry", "1"),
    ("cancel", "1"),
    ("suspend", "1"),
    ("continue", "1"),
    ("pause",),
    ("resume",),
    ("purge",),
    ("prune", "0s"),
]


def test_no_command_is_wrong_usage_and_shows_help(cli: Cli) -> None:
    run = cli.run(COMMAND)
    assert_wrong_usage(run, "Usage: dbtaskqueue", "enqueue", "worker", "doctor", "demo")


def test_every_command_has_help(cli: Cli) -> None:
    shown = cli.run([*COMMAND, "--help"]).out
    names = [line.split()[0] for line in shown.partition("Commands:\n")[2].splitlines()]
    assert names == [
        *PRODUCING_AND_WORKING,
        *[words[0] for words in LOOKING + OPERATING],
        "migrate",
        "copy",
        "doctor",
        "demo",
    ]
    assert "..." not in shown.partition("Commands:\n")[2], "a command's first line is too long"


def test_the_installed_command_is_the_same(cli: Cli) -> None:
    installed = Path(sys.executable).with_name("dbtaskqueue")
    assert cli.run([str(installed), "--help"]) == cli.run([*COMMAND, "--help"])


def test_version(cli: Cli) -> None:
    run = cli("--version")
    assert run.code == 0
    assert "dbtaskqueue" in run.out


@pytest.mark.parametrize("words", [*LOOKING, *OPERATING, ("doctor",)], ids=lambda words: words[0])
def test_only_enqueue_worker_and_migrate_make_a_database(cli: Cli, words: tuple[str, ...]) -> None:
    run = cli(*words)
    assert_explained(run, "does not exist", f"dbtaskqueue --url {cli.url} migrate")
    assert list(cli.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("nonsense",), "No such command"),
        (("--nonsense",), "No such option"),
        (("enqueue",), "Missing argument"),
        (("enqueue", "{bad"), "not JSON"),
        (("enqueue", ""), "not JSON"),
        (("enqueue", "NaN"), "NaN"),
        (("enqueue", "[" * 100_000), "nested too deeply"),
        (("enqueue", "1", "--queue", "no such name!"), "a queue's name is"),
        (("enqueue", "1", "--key", "k" * 256), "a task's key is"),
        (("enqueue", "1", "--priority", "32768"), "32768"),
        (("enqueue", "1", "--max-attempts", "0"), "0"),
        (("enqueue", "1", "--max-attempts", "3000000000"), "3000000000 is not in the range"),
        (("enqueue", "1", "--in", "-1"), "is no duration"),
        (("enqueue", "1", "--in", "soon"), "'soon' is no duration"),
        (("enqueue", "1", "--in", "9" * 400), "too long"),
        (("enqueue", "1", "--at", "tomorrow"), "'tomorrow' is no time"),
        (("enqueue", "1", "--at", "0001-01-01T00:00+14:00"), "beyond the years 1 to 9999"),
        (("enqueue", "1", "--at", "9999-12-31T23:59-14:00"), "beyond the years 1 to 9999"),
        (("enqueue", "1", "--at", "0001-01-01"), "0001-01-01"),
        (("enqueue", "1", "--in", "1", "--at", "2030-01-01"), "not both"),
        (("enqueue", "1", "2"), "PAYLOAD is one argument"),
        (("enqueue", "--command"), "after two dashes"),
        (("enqueue", "--command", "--", ""), "argv[0] is empty"),
        (("enqueue", "--command", "--cwd", "", "--", "true"), "cwd is empty"),
        (("enqueue", "--command", "--env", "NAME", "--", "true"), "NAME=VALUE"),
        (("enqueue", "--command", "--env", "=x", "--", "true"), "NAME=VALUE"),
        (("enqueue", "1", "--env", "A=1"), "are for a --command"),
        (("enqueue", "1", "--cwd", "/"), "are for a --command"),
        (("enqueue", "1", "--time-limit", "0"), "is no limit"),
        (("enqueue", "1", "--stall-limit", "soon"), "'soon' is no duration"),
        (("enqueue", "1", "--memory-limit", "0.1"), "'0.1' is no size"),
        (("enqueue", "1", "--memory-limit", "-1"), "'-1' is no size"),
        (("enqueue", "1", "--memory-limit", "9" * 400), "is no size"),
        (("enqueue", "1", "--memory-limit", "2 G"), "'2 G' is no size"),
        (("suspend", "x"), "not a valid integer"),
        (("continue",), "Missing argument"),
        (("list", "--state", "lost"), "'lost' is not one of"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("list", "--queue", ""), "a queue's name is"),
        (("show", "x"), "not a valid integer"),
        (("show",), "Missing argument"),
        (("prune", "30"), "'30' is no duration such as 30d"),
        (("prune", "0s", "--state", "running"), "'running' is not one of"),
        (("worker",), "Missing argument 'MODULE:NAME'"),
        (("worker", "tasks"), "not of the form MODULE:NAME"),
        (("worker", ":run"), "not of the form MODULE:NAME"),
        (("worker", "tasks:run", "--executor", "rocket"), "thread"),
        (("worker", "tasks:run", "--concurrency", "0"), "0 is not in the range"),
        (("worker", "tasks:run", "--lease", "0s"), "lease must be a finite number"),
        (("worker", "tasks:run", "--drain-timeout", "x"), "'x' is no duration"),
        (("worker", "tasks:run", "--queue", "?"), "a queue's name is"),
        (
            ("worker", "tasks:run", "--allow-commands", "--executor", "thread"),
            "--allow-commands needs --executor process",
        ),
        (("worker", "tasks:run", "--cancel-grace", "soon"), "'soon' is no duration"),
        (("worker", "tasks:run", "--tasks-per-child", "0"), "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_wrong_usage(cli: Cli, words: tuple[str, ...], reason: str) -> None:
    assert_wrong_usage(cli(*words), reason)
    assert not Path(cli.folder, "taskqueue.sqlite").exists()


@pytest.mark.parametrize("id", [0, 7, 2**63, 10**30])
@pytest.mark.parametrize("command", ["show", "logs", "retry", "cancel", "suspend", "continue"])
def test_an_unknown_id(cli: Cli, queue: TaskQueue, command: str, id: int) -> None:
    assert_explained(cli(command, id), f"there is no task {id}")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "not a database URL"),
        ("sqlite:///", "three slashes"),
        ("sqlite:////no/such/folder/x.sqlite", "the folder /no/such/folder does not exist"),
        ("sqlite:////", "Error"),
        ("postgresql://me:secret@host/db", "***"),
        ("sqlite:///x.sqlite?nonsense=1", "unknown option"),
        ("sqlite:///bad\x1b[31mname\n.sqlite?nonsense=1", "bad\\x1b[31mname\\n"),
    ],
)
def test_a_wrong_url(cli: Cli, url: str, reason: str) -> None:
    run = cli.run([*COMMAND, "--url", url, "enqueue", "1"])
    assert_explained(run, reason)
    assert "secret" not in run.err


def test_a_file_of_something_else(cli: Cli) -> None:
    Path(cli.folder, "taskqueue.sqlite").write_bytes(b"no database at all, but a long text\n" * 100)
    for words in (("enqueue", "1"), ("list",), ("migrate",)):
        assert_explained(cli(*words), "not a SQLite database, or a damaged one")


def test_a_database_of_another_program_is_not_touched_by_looking(cli: Cli) -> None:
    path = Path(cli.folder, "taskqueue.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customer (name TEXT)")
    connection.close()
    before = path.read_bytes()
    for words in (("list",), ("doctor",)):
        assert_explained(cli(*words), "has no dbtaskqueue schema", "migrate")
    assert path.read_bytes() == before, "not even its journal mode"
    assert [file.name for file in cli.folder.iterdir()] == [path.name]
    assert cli("enqueue", "1").code == 0


def test_a_folder_that_is_gone(cli: Cli) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    assert_explained(cli.run(["sh", "-c", script, "sh", *cli.line("worker", "tasks:run")]), "No such file")


def test_each_option_has_the_variable_that_its_name_suggests() -> None:
    """What is called --in is DBTASKQUEUE_ENQUEUE_IN, whatever the function's parameter is called."""
    for name, command in main.commands.items():
        for option in command.params:
            if isinstance(option, click.Option):
                word = option.opts[0].lstrip("-").replace("-", "_")
                explicit = [option.envvar] if isinstance(option.envvar, str) else option.envvar
                first = explicit[0] if explicit else f"DBTASKQUEUE_{name}_{option.name}".upper()
                assert first == f"DBTASKQUEUE_{name}_{word}".upper()


def test_options_come_from_the_environment(cli: Cli) -> None:
    with TaskQueue(cli.url, "other") as other:
        for number in range(3):
            other.enqueue(number)
    settings = {"DBTASKQUEUE_URL": cli.url, "DBTASKQUEUE_LIST_LIMIT": "2", "DBTASKQUEUE_LIST_JSON": "1"}

    def ids(**more: str) -> list[int]:
        return [task["id"] for task in cli.run([*COMMAND, "list"], env={**settings, **more}).json]

    assert ids() == []
    assert ids(DBTASKQUEUE_LIST_QUEUE="other") == [3, 2]
    assert ids(DBTASKQUEUE_QUEUE="other") == [3, 2]
    assert ids(DBTASKQUEUE_QUEUE="default", DBTASKQUEUE_LIST_QUEUE="other") == [3, 2], "the specific one wins"
    bad = cli.run([*COMMAND, "list"], env={**settings, "DBTASKQUEUE_LIST_LIMIT": "many"})
    assert_wrong_usage(bad, "'many' is not a valid integer")


def test_a_reader_that_stops_reading(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(["x" * 200] * 1000)
    for words in (("list", "--limit", 1000), ("list", "--json", "--limit", 1000), ("stats",), ("doctor",)):
        reader, writer = os.pipe()
        os.close(reader)
        command = subprocess.Popen(
            cli.line(*words), stdout=writer, stderr=subprocess.PIPE, env=cli.environment, cwd=cli.folder
        )
        os.close(writer)
        assert command.communicate(timeout=60)[1] == b"", words


def test_a_full_disk_under_the_output(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    script = 'exec "$@" > /dev/full'
    assert_explained(cli.run(["sh", "-c", script, "sh", *cli.line("list", "--json")]), "No space left")


def test_output_that_is_not_unicode(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("ü" * 100)
    for words in (("list",), ("show", 1), ("list", "--json")):
        run = cli(*words, env={"PYTHONIOENCODING": "ascii"})
        assert (run.code, run.err) == (0, ""), words
