"""All commands: usage, environment variables, and errors in one line."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import click
import pytest
from cli.running import COMMAND, Cli, Run, assert_explained, assert_wrong_usage
from click.testing import CliRunner

from dbtaskqueue import TaskQueue
from dbtaskqueue.cli import main

PRODUCING_AND_WORKING = ["enqueue", "worker"]
READING = [
    *(("list",), ("find",), ("show", "1"), ("why", "1"), ("tree", "1"), ("logs", "1")),
    *(("stats",), ("queues",), ("workers",), ("history",), ("overdue",), ("watch",)),
]
OPERATING = [
    ("retry", "1"),
    ("cancel", "1"),
    ("reschedule", "1", "--priority", "1"),
    ("delete", "1"),
    ("suspend", "1"),
    ("continue", "1"),
    ("pause",),
    ("resume",),
    ("purge", "--yes"),
    ("prune", "0s", "--yes"),
    ("retention",),
    ("audit",),
]


def test_no_command_is_wrong_usage_and_shows_help(cli: Cli) -> None:
    run = cli.run(COMMAND)
    assert_wrong_usage(run, "Usage: dbtaskqueue", "enqueue", "worker", "doctor", "demo")


def test_help_lists_every_command_in_groups(cli: Cli) -> None:
    shown = cli.run([*COMMAND, "--help"]).out
    listed = shown[shown.index("Produce tasks:") :]
    names = [line.split()[0] for line in listed.splitlines() if line.startswith("  ")]
    assert names == [
        *PRODUCING_AND_WORKING,
        *("dashboard", "dashboard-user"),
        *[words[0] for words in READING],
        "schedules",
        *[words[0] for words in OPERATING],
        *("metrics", "health"),
        "migrate",
        "copy",
        "doctor",
        "completion",
        "demo",
    ]
    assert names == list(main.commands)
    titles = [line for line in listed.splitlines() if line and not line.startswith("  ")]
    expected = [
        "Produce tasks",
        "Run tasks",
        "Dashboard",
        "Inspect",
        "Schedules",
        "Operate",
        "Monitor",
        "Database",
        "Your shell",
        "Try it",
    ]
    assert titles == [f"{title}:" for title in expected]


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("command", ["", *main.commands])
def test_help_fits_the_terminal(command: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner().invoke(main, [*command.split(), "--help"]).output
    assert "-h, --help" in shown
    assert max(len(line) for line in shown.splitlines()) <= columns
    assert "..." not in shown.partition("Produce tasks:")[2], "no first line of a command's help is cut"
    assert CliRunner().invoke(main, [*command.split(), "-h"]).output == shown


def test_the_installed_command_is_the_same(cli: Cli) -> None:
    installed = Path(sys.executable).with_name("dbtaskqueue")
    in_a_process = ["env", *COMMAND, "--help"]  # run in this process, help would be wider
    assert cli.run([str(installed), "--help"]) == cli.run(in_a_process)


def test_version(cli: Cli) -> None:
    run = cli("--version")
    assert run.code == 0
    assert "dbtaskqueue" in run.out


@pytest.mark.parametrize("words", [*READING, *OPERATING, ("doctor",)], ids=lambda words: words[0])
def test_only_enqueue_worker_and_migrate_make_a_database(cli: Cli, words: tuple[str, ...]) -> None:
    run = cli(*words)
    assert_explained(
        run,
        f"{cli.directory}/taskqueue.sqlite does not exist; ",
        "name another database with --url or $DBTASKQUEUE_URL",
    )
    assert "migrate" not in run.err, "must not suggest to create a second, empty database"
    assert list(cli.directory.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("nonsense",), "No such command"),
        (("statz",), "'stats'"),
        (("list", "--qeue", "x"), "'--queue'"),
        (("--queue", "no such name!", "list"), "a queue's name must be"),
        (("--nonsense",), "No such option"),
        (("enqueue",), "Missing argument"),
        (("enqueue", "{bad"), "not JSON"),
        (("enqueue", ""), "not JSON"),
        (("enqueue", "NaN"), "NaN"),
        (("enqueue", "[" * 100_000), "nested too deeply"),
        (("enqueue", "1", "--queue", "no such name!"), "a queue's name must be"),
        (("enqueue", "1", "--key", "k" * 256), "a task's key must be"),
        (("enqueue", "1", "--priority", "32768"), "32768"),
        (("enqueue", "1", "--max-attempts", "0"), "0"),
        (("enqueue", "1", "--max-attempts", "3000000000"), "3000000000 is not in the range"),
        (("enqueue", "1", "--in", "-1"), "invalid duration"),
        (("enqueue", "1", "--in", "soon"), "invalid duration 'soon'"),
        (("enqueue", "1", "--in", "9" * 400), "too long"),
        (("enqueue", "1", "--at", "tomorrow"), "invalid time 'tomorrow': must be like 2030-01-31T12:00 or"),
        (("enqueue", "1", "--at", "0001-01-01T00:00+14:00"), "not within the years 1 to 9999"),
        (("enqueue", "1", "--at", "9999-12-31T23:59-14:00"), "not within the years 1 to 9999"),
        (("enqueue", "1", "--at", "0001-01-01"), "0001-01-01"),
        (("enqueue", "1", "--in", "1", "--at", "2030-01-01"), "not both"),
        (("enqueue", "1", "2"), "PAYLOAD must be one argument"),
        (("enqueue", "--command"), "after two dashes"),
        (("enqueue", "--command", "df", "-h"), "two dashes before it: --command -- df -h"),
        (("schedules", "add", "s", "--every", "5m", "--command", "df", "-h"), "--command -- df -h"),
        (("enqueue", "--command", "run", "--queue", "x"), "--command -- run --queue x"),
        (("enqueue", "--command", "--", ""), "argv[0] is empty"),
        (("enqueue", "--command", "--cwd", "", "--", "true"), "cwd is empty"),
        (("enqueue", "--command", "--env", "NAME", "--", "true"), "NAME=VALUE"),
        (("enqueue", "--command", "--env", "=x", "--", "true"), "NAME=VALUE"),
        (("enqueue", "1", "--env", "A=1"), "need --command"),
        (("enqueue", "1", "--cwd", "/"), "need --command"),
        (("enqueue", "1", "--time-limit", "0"), "invalid limit"),
        (("enqueue", "1", "--stall-limit", "soon"), "invalid duration 'soon'"),
        (("enqueue", "1", "--memory-limit", "0.1"), "invalid size '0.1'"),
        (("enqueue", "1", "--memory-limit", "-1"), "invalid size '-1'"),
        (("enqueue", "1", "--memory-limit", "9" * 400), "invalid size"),
        (("enqueue", "1", "--memory-limit", "2 G"), "invalid size '2 G'"),
        (("suspend", "x"), "not a valid integer"),
        (("continue",), "Missing argument"),
        (("list", "--state", "lost"), "'lost' is not one of"),
        (("list", "--limit", "0"), "0 is not in the range"),
        (("list", "--queue", ""), "a queue's name must be"),
        (("show", "x"), "not a valid integer"),
        (("show",), "Missing argument"),
        (("prune", "30"), "invalid duration '30'"),
        (("prune", "0s", "--state", "running"), "'running' is not one of"),
        (("worker",), "name the code of the tasks as MODULE:NAME"),
        (("worker", "tasks"), "not of the form MODULE:NAME, such as app:queue"),
        (("worker", ":run"), "not of the form MODULE:NAME"),
        (("worker", "tasks.py:run"), "'tasks.py' is not a module's name; perhaps you mean tasks:run"),
        (("worker", "./tasks:run"), "'./tasks' is not a module's name; perhaps you mean tasks:run"),
        (("worker", "pkg/tasks.py:run"), "'pkg/tasks.py' is not a module's name; perhaps you mean pkg.tasks:run"),
        (("worker", "/srv/tasks.py:run"), "is not a module's name; run the worker in the directory of the module"),
        (("worker", "tasks:run", "--executor", "rocket"), "thread"),
        (("worker", "tasks:run", "--concurrency", "0"), "0 is not in the range"),
        (("worker", "tasks:run", "--lease", "0s"), "lease must be a finite number"),
        (("worker", "tasks:run", "--drain-timeout", "x"), "invalid duration 'x'"),
        (("worker", "tasks:run", "--queue", "?"), "a queue's name must be"),
        (("worker", "tasks:run", "--queue", "a*b"), "a queue pattern must be '*', or the start of a queue's name"),
        (("--queue", "*a", "worker", "tasks:run"), "a queue pattern must be '*', or the start of a queue's name"),
        (("enqueue", "1", "--queue", "mail*"), "a queue's name must be"),
        (("--queue", "mail*", "enqueue", "1"), "a queue's name must be"),
        (("--queue", "mail", "--queue", "*", "list"), "a queue's name must be"),
        (
            ("worker", "tasks:run", "--allow-commands", "--executor", "thread"),
            "--allow-commands needs --executor process",
        ),
        (("worker", "tasks:run", "--cancel-grace", "soon"), "invalid duration 'soon'"),
        (("worker", "tasks:run", "--tasks-per-child", "0"), "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_wrong_usage(cli: Cli, words: tuple[str, ...], reason: str) -> None:
    assert_wrong_usage(cli(*words), reason)
    assert not Path(cli.directory, "taskqueue.sqlite").exists()


UNKNOWN_QUEUE = "no such queue: mial. Did you mean mail? Existing queues: default, mail"


@pytest.mark.parametrize(
    "words",
    ["list", "list --json", "stats --functions", "watch", "doctor", "resume", "purge --yes", "prune 0s --yes"],
)
def test_a_misspelt_queue(cli: Cli, queue: TaskQueue, words: str) -> None:
    queue.enqueue(1)
    with TaskQueue(cli.url, "mail") as mail:
        mail.enqueue(1)
    assert cli(*words.split(), "--queue", "mial") == (1, "", f"Error: {UNKNOWN_QUEUE}\n")


def test_a_new_queue_may_be_filled_served_and_paused(cli: Cli) -> None:
    Path(cli.directory, "tasks.py").write_text("def run(payload): pass\n")
    assert cli("migrate").code == 0
    assert cli("pause", "--queue", "first").err == "", "there is no other queue"
    for words in (("enqueue", "1"), ("worker", "tasks:run", "--burst", "--executor", "thread")):
        run = cli(*words, "--queue", f"new-{words[0]}")
        assert run.code == 0
        assert "Queues:" not in run.err
    run = cli("pause", "--queue", "new-enqeue")
    assert run.out == "queue new-enqeue is paused\n"
    assert run.err.startswith("queue new-enqeue has no tasks yet. Did you mean new-enqueue?")


def test_the_default_queue_may_be_missing(cli: Cli, queue: TaskQueue) -> None:
    for words in (("stats",), ("list",), ("stats", "--queue", "mail")):
        run = cli(*words, "--json")
        assert (run.code, run.err) == (0, ""), "in a database without any queue none is misspelt"
    with TaskQueue(cli.url, "mail") as mail:
        mail.enqueue(1)
    run = cli("stats", "--json")
    assert (run.code, run.json["pending"], run.err) == (0, 0, "no such queue: default. Existing queues: mail\n")


@pytest.mark.parametrize("id", [0, 7, 2**63, 10**30])
@pytest.mark.parametrize("command", ["show", "logs", "retry", "cancel", "suspend", "continue"])
def test_an_unknown_id(cli: Cli, queue: TaskQueue, command: str, id: int) -> None:
    assert_explained(cli(command, id), f"there is no task {id}")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("nonsense", "not a database URL"),
        ("sqlite:///", "three slashes"),
        ("sqlite:////no/such/directory/x.sqlite", "the directory /no/such/directory does not exist"),
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
    Path(cli.directory, "taskqueue.sqlite").write_bytes(b"no database at all, but a long text\n" * 100)
    for words in (("enqueue", "1"), ("list",), ("migrate",)):
        assert_explained(cli(*words), "not a SQLite database, or a damaged one")


def test_reading_commands_leave_a_database_of_another_program_unchanged(cli: Cli) -> None:
    path = Path(cli.directory, "taskqueue.sqlite")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE customer (name TEXT)")
    connection.close()
    before = path.read_bytes()
    for words in (("list",), ("doctor",)):
        assert_explained(cli(*words), "has no dbtaskqueue schema", "migrate")
    assert path.read_bytes() == before, "not even the journal mode changed"
    assert [file.name for file in cli.directory.iterdir()] == [path.name]
    assert cli("enqueue", "1").code == 0


def test_a_deleted_current_directory(cli: Cli) -> None:
    script = 'mkdir deleted && cd deleted && rmdir ../deleted && exec "$@"'
    assert_explained(cli.run(["sh", "-c", script, "sh", *cli.line("worker", "tasks:run")]), "No such file")


def test_each_option_has_the_variable_that_its_name_suggests() -> None:
    """The variable of --in is DBTASKQUEUE_ENQUEUE_IN, although the function's parameter has another name."""
    for name, command in main.commands.items():
        for option in command.params:
            if isinstance(option, click.Option) and option.allow_from_autoenv:
                word = option.opts[0].lstrip("-").replace("-", "_")
                explicit = [option.envvar] if isinstance(option.envvar, str) else option.envvar
                first = explicit[0] if explicit else f"DBTASKQUEUE_{name}_{option.name}".upper()
                assert first == f"DBTASKQUEUE_{name}_{word}".upper()


def test_url_and_queue_before_and_after_the_command(cli: Cli) -> None:
    with TaskQueue(cli.url, "mail") as mail:
        mail.enqueue(1)
    for words in (
        ["--url", cli.url, "--queue", "mail", "list"],
        ["list", "--queue", "mail", "--url", cli.url],
        ["--url", "sqlite:///no.sqlite", "--queue", "other", "list", "--url", cli.url, "--queue", "mail"],
    ):
        elsewhere = {"DBTASKQUEUE_URL": "sqlite:///no.sqlite", "DBTASKQUEUE_QUEUE": "x", "DBTASKQUEUE_LIST_QUEUE": "y"}
        run = cli.run([*COMMAND, *words, "--json"], env=elsewhere)
        assert [task["id"] for task in run.json] == [1], words


def test_queues_of_a_worker_before_and_after_the_command(cli: Cli) -> None:
    Path(cli.directory, "tasks.py").write_text("def run(payload): pass\n")
    for words in (
        ["--queue", "a", "--queue", "b", "worker", "tasks:run", "--url", cli.url],
        ["--url", cli.url, "worker", "tasks:run", "--queue", "a", "--queue", "b"],
    ):
        run = cli.run([*COMMAND, *words, "--burst", "--executor", "thread"], env={"DBTASKQUEUE_QUEUE": "x"})
        assert run.code == 0
        assert "queues=a,b " in run.err


@pytest.mark.parametrize("words", [("show", "1"), ("workers",), ("migrate",), ("copy", "a", "b"), ("demo",)])
def test_a_queue_before_a_command_that_takes_none(cli: Cli, words: tuple[str, ...]) -> None:
    assert_wrong_usage(cli("--queue", "mail", *words), f"the command {words[0]} takes no --queue")


@pytest.mark.parametrize(
    "command", [name for name in main.commands if name not in ("copy", "demo", "dashboard-user", "completion")]
)
def test_each_command_shows_url_in_its_help(command: str) -> None:
    assert "--url URL" in CliRunner().invoke(main, [command, "--help"]).output


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
            cli.line(*words), stdout=writer, stderr=subprocess.PIPE, env=cli.environment, cwd=cli.directory
        )
        os.close(writer)
        assert command.communicate(timeout=60)[1] == b"", words


def with_shell(cli: Cli, redirection: str, *words: object) -> Run:
    """Run the command in a shell that redirects its streams."""
    return cli.run(["sh", "-c", f'exec "$@" {redirection}', "sh", *cli.line(*words)])


@pytest.mark.parametrize(
    "words", ["list", "list --json", "stats", "stats --json", "doctor", "show 1", "enqueue 2", "--help", "list --help"]
)
def test_a_full_disk_under_stdout(cli: Cli, queue: TaskQueue, words: str) -> None:
    queue.enqueue(1)
    run = with_shell(cli, "> /dev/full", *words.split())
    assert run == (1, "", "Error: cannot write the output: No space left on device\n")


def test_a_full_disk_under_stdout_does_not_hide_an_error(cli: Cli) -> None:
    assert_explained(with_shell(cli, "> /dev/full", "list"), "does not exist")
    assert with_shell(cli, "> /dev/full", "nonsense").code == 2


def test_a_full_disk_under_stderr(cli: Cli, queue: TaskQueue) -> None:
    """Only the exit code can report it."""
    queue.enqueue(1)
    assert with_shell(cli, "2> /dev/full", "list", "--state", "done") == (1, "", ""), "a note was lost"
    assert with_shell(cli, "2> /dev/full", "show", 7) == (1, "", "")
    assert with_shell(cli, "2> /dev/full", "nonsense") == (2, "", "")
    assert with_shell(cli, "> /dev/full 2>&1", "stats") == (1, "", "")
    assert with_shell(cli, "2> /dev/full", "stats", "--json").json["pending"] == 1


def test_closed_streams(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    assert with_shell(cli, "0<&- >&-", "stats") == (0, "", "")
    assert with_shell(cli, "2>&-", "show", 7) == (1, "", "")


def test_output_that_is_not_unicode(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("ü" * 100)
    for words in (("list",), ("show", 1), ("list", "--json")):
        run = cli(*words, env={"PYTHONIOENCODING": "ascii"})
        assert (run.code, run.err) == (0, ""), words
