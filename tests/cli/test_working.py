"""dbtaskqueue worker: what it runs, how it ends, what it logs."""

from __future__ import annotations

import contextlib
import re
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from cli.running import COMMAND, WITHIN, Cli, assert_explained, assert_wrong_usage
from helpers import until

from dbtaskqueue import TaskQueue

TASKS = """
import functools, logging, os, sys, time
from dbtaskqueue import TaskQueue, current_task

def run(payload):
    return {"ran": payload, "process": os.getpid()}

def fail(payload):
    raise ValueError("no \\x1b[31m luck")

def slow(payload):
    open("started", "w").close()
    time.sleep(payload)
    return "slept"

def stay(payload):
    while not payload and not os.path.exists("go"):
        time.sleep(0.01)
    if not payload:
        logging.getLogger("mine").warning("starts to wait")
    time.sleep(payload)

def endure(payload):
    open("started", "w").close()
    until = time.monotonic() + payload
    while time.monotonic() < until:
        try:
            time.sleep(until - time.monotonic())
        except BaseException:
            pass

def log(payload):
    logging.getLogger("mine").warning("mine \\x1b]0;evil\\x07\\nsecond")

class Thing:
    def method(self, payload):
        return ["method", payload]

class Holder:
    def __init__(self):
        self.thing = Thing()
        self.local = lambda payload: payload

number = 7
thing = Thing()
holder = Holder()
partial = functools.partial(lambda kind, payload: [kind, payload], "partial")
anonymous = lambda payload: ["lambda", payload]
"""
QUEUE = """
from dbtaskqueue import TaskQueue
queue = TaskQueue({url}, queue="functions")

@queue.task(name="add")
def add(a, b):
    return a + b
"""


@pytest.fixture
def tasks(cli: Cli) -> Path:
    path = Path(cli.directory, "tasks.py")
    path.write_text(TASKS)
    return path


pytestmark = pytest.mark.usefixtures("tasks")


def test_a_callback_runs_what_is_due(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([{"n": n} for n in range(5)])
    run = cli("worker", "tasks:run", "--burst", "--concurrency", 2)
    assert (run.code, run.out) == (0, "")
    assert queue.stats().done == 5
    assert queue.get(1).result["ran"] == {"n": 0}


def test_modules_of_the_current_directory_are_found(cli: Cli) -> None:
    """The installed command has to add the directory to the path; ``python -m`` does so by itself."""
    installed = str(Path(sys.executable).with_name("dbtaskqueue"))
    assert cli.run([installed, "--url", cli.url, "worker", "tasks:run", "--burst"]).code == 0


def test_a_worker_makes_the_database(cli: Cli) -> None:
    assert cli("worker", "tasks:run", "--burst").code == 0
    assert cli("stats").code == 0


def test_several_queues(cli: Cli) -> None:
    for name in ("a", "b", "c"):
        with TaskQueue(cli.url, name) as queue:
            queue.enqueue(1)
    cli("worker", "tasks:run", "--burst", "--queue", "a", "--queue", "b")
    states = [task["state"] for name in ("a", "b", "c") for task in cli("list", "--json", "--queue", name).json]
    assert states == ["done", "done", "pending"]
    cli.run([*COMMAND, "worker", "tasks:run", "--burst"], env={"DBTASKQUEUE_URL": cli.url, "DBTASKQUEUE_QUEUE": "c d"})
    assert cli("list", "--json", "--queue", "c").json[0]["state"] == "done"


def test_queues_by_pattern(cli: Cli) -> None:
    for name in ("mail", "mail.a", "news"):
        with TaskQueue(cli.url, name) as queue:
            queue.enqueue(1)
    run = cli("worker", "tasks:run", "--burst", "--queue", "mail*")
    assert (run.code, "queues=mail* " in run.err) == (0, True)
    states = [cli("list", "--json", "--queue", name).json[0]["state"] for name in ("mail", "mail.a", "news")]
    assert states == ["done", "done", "pending"]
    assert cli.run([*COMMAND, "--url", cli.url, "--queue", "*", "worker", "tasks:run", "--burst"]).code == 0
    assert cli("list", "--json", "--queue", "news").json[0]["state"] == "done"


def test_a_running_worker_finds_queues_that_appear_later(cli: Cli, queue: TaskQueue) -> None:
    with cli.started("worker", "tasks:run", "--queue", "*"):
        until(lambda: cli("workers", "--json").json, what="the worker's row")
        for name in ("first", "second"):
            task = queue.lane(name).enqueue(1)
            until(lambda task=task: task.refresh().state == "done", what=f"the task of {name}")
        assert cli("workers", "--json").json[0]["queues"] == ["*"]
        assert {each["name"]: each["workers"] for each in cli("queues", "--json").json} == {"first": 1, "second": 1}


def test_options_from_the_environment_reach_the_worker(cli: Cli, queue: TaskQueue) -> None:
    settings = {
        "DBTASKQUEUE_URL": cli.url,
        "DBTASKQUEUE_WORKER_CONCURRENCY": "3",
        "DBTASKQUEUE_WORKER_BURST": "1",
        "DBTASKQUEUE_WORKER_QUEUE": "x y",
    }
    run = cli.run([*COMMAND, "worker", "tasks:run"], env=settings)
    assert run.code == 0
    assert "queues=x,y concurrency=3" in run.err


def test_the_first_log_line_names_what_the_worker_serves(cli: Cli) -> None:
    Path(cli.directory, "mine.py").write_text(QUEUE.format(url="None"))
    start = rf"INFO worker starts pid=\d+ database={re.escape(cli.url)} queues="
    first = cli("worker", "mine:queue", "--burst", "--executor", "thread").err.splitlines()[0]
    assert re.search(rf"{start}functions concurrency=1 executor=thread functions=1$", first)
    first = cli("worker", "tasks:run", "--burst", "--concurrency", 2).err.splitlines()[0]
    assert re.search(rf"{start}default concurrency=2 executor=process callback=tasks:run$", first)


def test_a_task_queue_without_task_functions_is_refused_in_one_line(cli: Cli) -> None:
    Path(cli.directory, "empty.py").write_text("from dbtaskqueue import TaskQueue\nqueue = TaskQueue()\n")
    assert_explained(cli("worker", "empty:queue", "--burst"), "empty:queue has no task functions")


# -- task functions --------------------------------------------------------------------------------


def test_a_task_queue_runs_its_functions(cli: Cli) -> None:
    Path(cli.directory, "mine.py").write_text(QUEUE.format(url="None"))
    with TaskQueue(cli.url, "functions") as queue:
        queue.submit([{"args": [1, 2], "kwargs": {}}], {}, "add")
        run = cli("worker", "mine:queue", "--burst")
        assert run.code == 0
        assert queue.get(1).result == 3, "the module's TaskQueue() has the command's URL"
    assert "queues=functions" in run.err


ASYNC = """
import asyncio, time

together = []

async def run(payload):
    together.append(payload)
    while len(together) < 50:
        await asyncio.sleep(0.01)
    return payload

async def block(payload):
    time.sleep(payload)

async def numbers(payload):
    yield 1
"""


def test_coroutines(cli: Cli, queue: TaskQueue) -> None:
    Path(cli.directory, "later.py").write_text(ASYNC)
    queue.enqueue_many(range(50))
    run = cli("worker", "later:run", "--burst", "--executor", "asyncio", "--concurrency", 50)
    assert (run.code, run.out) == (0, "")
    assert queue.stats().done == 50
    queue.enqueue(0.1)
    assert cli("worker", "later:block", "--burst", "--executor", "thread").code == 0
    assert queue.stats().done == 51


def test_a_blocked_loop_is_shown_with_its_stack(cli: Cli, queue: TaskQueue) -> None:
    Path(cli.directory, "later.py").write_text(ASYNC)
    task = queue.enqueue(1.8)
    run = cli("worker", "later:block", "--burst", "--executor", "asyncio")
    assert f"the event loop is blocked seconds=1.0 task_id={task.id} tasks={task.id} at=" in run.err
    assert re.search(r'^  File ".*later.py", line \d+, in block\n    time.sleep\(payload\)$', run.err, re.MULTILINE)


def test_an_async_generator_is_refused_in_one_line(cli: Cli) -> None:
    Path(cli.directory, "later.py").write_text(ASYNC)
    assert_explained(cli("worker", "later:numbers", "--burst"), "later:numbers", "async generator")


@pytest.mark.parametrize("given", ["--url", "environment", "its own"])
def test_a_task_queue_that_is_not_open_gets_the_url_of_the_command(cli: Cli, given: str) -> None:
    own = repr(cli.url) if given == "its own" else "None"
    Path(cli.directory, "mine.py").write_text(QUEUE.format(url=f"{own}, open=False"))
    words = ["--url", cli.url] if given == "--url" else []
    env = {"DBTASKQUEUE_URL": cli.url if given == "environment" else "sqlite:///unused.sqlite"}
    with TaskQueue(cli.url, "functions") as queue:
        [task] = queue.submit([{"args": [1, 2], "kwargs": {}}], {}, "add")
        assert cli.run([*COMMAND, *words, "worker", "mine:queue", "--burst"], env=env).code == 0
        assert task.refresh().result == 3
    assert not list(Path(cli.directory).glob("unused.sqlite"))


def test_the_worker_ends_after_some_tasks_or_some_time_without_one(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many(range(3))
    assert cli("worker", "tasks:run", "--max-tasks", 2).code == 0
    assert (queue.stats().done, queue.stats().pending) == (2, 1)
    assert cli("worker", "tasks:run", "--idle-timeout", "0.2s").code == 0
    assert queue.stats().done == 3


def test_another_url_than_the_task_queue_has(cli: Cli) -> None:
    Path(cli.directory, "mine.py").write_text(QUEUE.format(url='"sqlite:///own.sqlite"'))
    assert_explained(cli("worker", "mine:queue", "--burst"), "its own database: leave out --url")
    environment = {"DBTASKQUEUE_URL": cli.url}
    assert cli.run([*COMMAND, "worker", "mine:queue", "--burst"], env=environment).code == 0
    assert Path(cli.directory, "own.sqlite").exists()


@pytest.mark.parametrize(
    "spelling",
    ["sqlite:///{}/own.sqlite", "sqlite:///../{name}/./own.sqlite?synchronous=NORMAL", "dbi:SQLite:own.sqlite"],
)
def test_another_spelling_of_the_url_that_the_task_queue_has(cli: Cli, spelling: str) -> None:
    Path(cli.directory, "mine.py").write_text(QUEUE.format(url='"sqlite:///own.sqlite"'))
    url = spelling.format(cli.directory, name=cli.directory.name)
    run = cli.run([*COMMAND, "--url", url, "worker", "mine:queue", "--burst"])
    assert run.code == 0, run


def test_the_lease_option_is_used(cli: Cli) -> None:
    Path(cli.directory, "mine.py").write_text(QUEUE.format(url="None"))
    for target in ("mine:queue", "tasks:run"):
        with cli.started("worker", target, "--lease", "7s", "--queue", "functions"), TaskQueue(cli.url) as queue:
            until(lambda: [row.lease for row in queue.store.workers() if row.lost_at is None] == [7.0])


# -- processes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--executor", "thread"]])
def test_tasks_run_in_processes_unless_asked_otherwise(cli: Cli, queue: TaskQueue, options: list[str]) -> None:
    task = queue.enqueue(1)
    run = cli("worker", "tasks:run", "--burst", *options)
    worker = re.search(r"worker starts pid=(\d+)", run.err)
    assert worker
    assert (task.refresh().result["process"] == int(worker[1])) == bool(options)  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("target", "result"),
    [
        ("tasks:thing.method", ["method", 1]),
        ("tasks:partial", ["partial", 1]),
        ("tasks:anonymous", ["lambda", 1]),
    ],
)
def test_objects_that_a_child_finds_by_module_and_name(
    cli: Cli, queue: TaskQueue, target: str, result: list[object]
) -> None:
    task = queue.enqueue(1)
    assert cli("worker", target, "--burst").code == 0
    assert task.refresh().result == result


@pytest.mark.parametrize("target", ["tasks:holder.thing.method", "tasks:holder.local"])
def test_an_object_that_a_child_cannot_find_gets_a_suggested_fix(cli: Cli, queue: TaskQueue, target: str) -> None:
    task = queue.enqueue(1)
    assert_explained(cli("worker", target, "--burst"), f"cannot find {target}", "--executor thread")
    assert task.refresh().state == "pending"
    assert cli("worker", target, "--burst", "--executor", "thread").code == 0
    assert task.refresh().state == "done"


ONCE = """
import os, sys
def run(payload): pass
if not os.path.exists("once"):
    open("once", "w")
else:
    """


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("raise OSError('the port\\nis taken')", "OSError: the port\\nis taken (once.py, line 7)"),
        ("sys.exit('enough')", "SystemExit: enough (once.py, line 7)"),
        ("import nonsense", "No module named 'nonsense'"),
    ],
)
def test_a_module_that_cannot_be_imported_a_second_time(cli: Cli, queue: TaskQueue, line: str, reason: str) -> None:
    Path(cli.directory, "once.py").write_text(ONCE + line)
    task = queue.enqueue(1)
    run = cli("worker", "once:run", "--burst", "--log-level", "warning")
    assert_explained(run, "the fork server cannot import the code: ", reason)
    assert task.refresh().state == "pending"
    assert queue.stats().workers == 0


def test_command_lines_run_if_they_are_allowed(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue_command([sys.executable, "-c", "print('from a command')"])
    assert cli("worker", "tasks:run", "--burst").code == 0
    assert task.refresh().state == "pending"
    assert cli("worker", "tasks:run", "--burst", "--allow-commands").code == 0
    assert task.refresh().state == "done"
    assert task.attempts()[-1].output == "from a command\n"


def test_a_worker_without_code_runs_command_lines_only(cli: Cli) -> None:
    assert cli("enqueue", "--command", "--", "echo", "hello").code == 0
    assert cli("enqueue", "1").code == 0
    ended = cli("worker", "--allow-commands", "--burst")
    assert ended.code == 0
    assert "commands=only" in ended.err
    assert [(task["id"], task["state"], task["attempt"]) for task in cli("list", "--json").json] == [
        (2, "pending", 0),
        (1, "done", 1),
    ]
    assert_wrong_usage(
        cli("worker"), "name the code of the tasks as MODULE:NAME, or run command lines with --allow-commands"
    )


def test_a_running_worker_without_code_is_shown_as_one_for_commands(cli: Cli, queue: TaskQueue) -> None:
    with cli.started("worker", "--allow-commands", "--queue", "*"):
        until(lambda: cli("workers", "--json").json, what="the worker's row")
        task = queue.lane("backup").enqueue_command([sys.executable, "-c", "print('saved')"])
        until(lambda: task.refresh().state == "done", what="the command")
        [worker] = cli("workers", "--json").json
        assert (worker["commands"], worker["executor"], worker["queues"]) == (True, "process", ["*"])
        assert re.search(r" process, commands +\S+$", cli("workers").out, re.MULTILINE)
    assert task.attempts()[-1].output == "saved\n"


def test_a_child_is_replaced_after_tasks_per_child(cli: Cli, queue: TaskQueue) -> None:
    tasks = [queue.enqueue(n) for n in range(6)]
    assert cli("worker", "tasks:run", "--burst", "--tasks-per-child", 2).code == 0
    ran = [task.refresh().result["process"] for task in tasks]  # type: ignore[index, call-overload]
    assert max(ran.count(pid) for pid in ran) <= 2


def test_a_task_that_does_not_end_is_killed_after_cancel_grace(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(300.0)
    with cli.started("worker", "tasks:endure", "--drain-timeout", "0s", "--cancel-grace", "0.3") as worker:
        until(Path(cli.directory, "started").exists, what="the task runs")
        worker.terminate()
        assert worker.wait(WITHIN) == 0
    assert (task.refresh().state, task.attempt) == ("pending", 0)


# -- what cannot be run ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere:run", "there is no module 'nowhere'"),
        ("tasks.sub:run", "there is no module 'tasks.sub'"),
        ("tasks:nothing", "the module 'tasks' has no 'nothing'"),
        ("tasks:run.deeper", "the module 'tasks' has no 'run.deeper'"),
        ("tasks:number", "it must be a callback or a TaskQueue"),
        ("tasks:Thing", "the class Thing"),
        ("mine:add", "is a task function; name the TaskQueue"),
        ("broken:run", "SyntaxError"),
        ("raising:run", "ZeroDivisionError: division by zero (raising.py, line 2)"),
        ("leaving:run", "SystemExit: 3"),
        ("needing:run", "the module 'needing' cannot be imported: ModuleNotFoundError: No module named 'nonsense'"),
        ("lost:queue", "No such"),
        (".tasks:run", "cannot be imported"),
        ("evil\x1b[31m:run", "evil\\x1b[31m"),
    ],
)
def test_code_that_cannot_be_run_is_explained(cli: Cli, target: str, reason: str) -> None:
    sources = {
        "mine": QUEUE.format(url="None"),
        "broken": "def run(:",
        "raising": "x = 1\n1 / 0",
        "leaving": "import sys; sys.exit(3)",
        "needing": "import nonsense",
        "lost": "open('no such file')",
    }
    for name, text in sources.items():
        Path(cli.directory, f"{name}.py").write_text(text)
    run = cli("worker", target)
    assert_explained(run, reason)
    assert "\x1b" not in run.err


# -- ending ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(cli: Cli, queue: TaskQueue, number: signal.Signals) -> None:
    slow, next_one = queue.enqueue(1.0), queue.enqueue(0.0)
    with cli.started("worker", "tasks:slow") as worker:
        until(Path(cli.directory, "started").exists, what="the task runs")
        worker.send_signal(number)
        out, err = worker.communicate(timeout=WITHIN)
    assert (worker.returncode, out) == (0, b"")
    assert (slow.refresh().state, slow.result) == ("done", "slept")
    assert next_one.refresh().state == "pending", "nothing new is started"
    assert "INFO worker ends" in err.decode().splitlines()[-1]
    assert queue.store.workers() == []


def test_tasks_are_released_after_drain_timeout(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(120.0)
    with cli.started("worker", "tasks:slow", "--drain-timeout", "0.1") as worker:
        until(Path(cli.directory, "started").exists, what="the task runs")
        started = time.monotonic()
        worker.terminate()
        worker.wait(WITHIN)
    assert worker.returncode == 0
    assert time.monotonic() - started < 20
    assert (task.refresh().state, task.attempt) == ("pending", 0)


def test_a_signal_drains_from_the_first_line_on(cli: Cli, queue: TaskQueue) -> None:
    with cli.started("worker", "tasks:run") as worker:
        assert worker.stderr is not None
        assert b"worker starts" in worker.stderr.readline()
        worker.terminate()
        assert worker.wait(WITHIN) == 0


@pytest.mark.parametrize("pause", [0.0, 0.03, 0.06, 0.1, 0.2])
def test_a_second_signal_just_after_the_drain_does_not_kill(cli: Cli, queue: TaskQueue, pause: float) -> None:
    with cli.started("worker", "tasks:run", "--executor", "thread") as worker:
        until(lambda: queue.stats().workers == 1, what="the worker waits for tasks")
        worker.terminate()
        deadline = time.monotonic() + pause
        while worker.poll() is None:  # for as long as the process exists
            if time.monotonic() >= deadline:
                worker.terminate()
                time.sleep(0.002)
    assert worker.returncode == 0


def plain(shown: str) -> str:
    """Return what a terminal shows, as one line without colours."""
    return " ".join(re.sub(r"\x1b\[[\d;]*m", "", shown).split())


def test_ctrl_c_is_answered_immediately(cli: Cli, queue: TaskQueue) -> None:
    task = queue.enqueue(300.0)
    with cli.terminal("worker", "tasks:slow") as worker:
        until(Path(cli.directory, "started").exists, what="the task runs")
        worker.press("\x03")
        answer = "stopping: 1 task may run for 20 s more; press Ctrl-C again to stop now"
        until(lambda: answer in plain(worker.shown), what="the answer")
        assert task.refresh().state == "running"
        worker.press("\x03")
        assert worker.leaves() == 0
        assert "stopping now: 1 task stopped and released" in plain(worker.shown)
    assert (task.refresh().state, task.attempt) == ("pending", 0)


def test_a_signal_is_answered_while_the_worker_waits_for_the_database(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue_many([300.0, 0.0])
    with (
        contextlib.closing(sqlite3.connect(Path(cli.directory, "taskqueue.sqlite"), timeout=30)) as connection,
        cli.started("worker", "tasks:stay", "--executor", "thread", "--concurrency", 2) as worker,
    ):
        until(lambda: queue.stats().running == 2, what="both tasks run")
        connection.execute("BEGIN IMMEDIATE")
        Path(cli.directory, "go").touch()  # the second task ends, and its outcome cannot be stored
        assert worker.stderr is not None
        lines = iter(worker.stderr.readline, b"")
        assert any(b"starts to wait" in line for line in lines)
        worker.terminate()
        answer = rb"INFO stopping: (1 task|2 tasks) may run for 20 s more; send the signal again to stop now"
        # Two tasks, since the write of the second outcome has just started.
        assert any(re.search(answer, line) for line in lines)
        connection.rollback()
        worker.terminate()
        assert worker.wait(WITHIN) == 0


# -- logging ---------------------------------------------------------------------------------------

PLAIN = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|WARNING|ERROR) [^=]+( \w+=\S+)*"


def test_logs_on_a_pipe_are_plain_lines(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("secret payload")
    queue.enqueue("another secret")
    run = cli("worker", "tasks:run", "--burst")
    assert all(re.fullmatch(PLAIN, line) for line in run.err.splitlines()), run.err
    assert re.search(r"INFO task done task_id=1 queue=default function=None attempt=1 seconds=", run.err, re.MULTILINE)
    assert "secret" not in run.err


def test_a_failure_is_logged_without_its_payload(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("secret")
    run = cli("worker", "tasks:fail", "--burst")
    failed = r"WARNING task failed task_id=1 .* attempt=1 max_attempts=10 retry_in=60\.0 error=ValueError"
    assert re.search(rf"{failed} message=no \\x1b\[31m luck$", run.err, re.MULTILINE)
    assert "secret" not in run.err


def test_log_lines_of_a_task_are_escaped(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    run = cli("worker", "tasks:log", "--burst", "--executor", "thread")
    assert "WARNING mine \\x1b]0;evil\\x07\\nsecond\n" in run.err


def test_what_a_task_in_a_process_logs_is_its_output(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    assert "mine" not in cli("worker", "tasks:log", "--burst").err
    assert "WARNING mine mine \\x1b]0;evil\\x07\n" in cli("show", 1).out


def test_the_log_level(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue("x")
    assert cli("worker", "tasks:run", "--burst", "--log-level", "warning").err == ""


def test_a_module_may_set_up_logging_itself(cli: Cli, queue: TaskQueue) -> None:
    Path(cli.directory, "own.py").write_text(
        "import logging\nlogging.basicConfig(format='own: %(message)s')\ndef run(payload): pass\n"
    )
    queue.enqueue(1)
    lines = cli("worker", "own:run", "--burst").err.splitlines()
    assert lines
    assert all(line.startswith("own: ") for line in lines)


def test_logs_on_a_terminal_are_coloured_and_fit(cli: Cli, queue: TaskQueue) -> None:
    queue.enqueue(1)
    shown = cli.on_terminal("worker", "tasks:run", "--burst")
    assert shown.code == 0
    assert "\x1b[" in shown.out
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown.out)
    assert "task done" in plain
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert "\x1b" not in cli.on_terminal("worker", "tasks:run", "--burst", env={"NO_COLOR": "1"}).out
