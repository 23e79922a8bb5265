"""A database of version 0.1.0 is upgraded with all its tasks, and everything in it works as before.

``tests/upgrades/v0_1_0`` has the databases, and the values that version 0.1.0 reads from them. Each task has a name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from engines import cursor, execute
from helpers import ended, run_python, spawn, until
from servers.shared import fresh_mariadb_url
from upgrades.reading import delay_after_failure, read_queue, read_task, read_usage, read_workers
from upgrades.released import HERE, NoHistory, extract_program, load, statements_of

from dbtaskqueue import InvalidTransition, SchemaError, Task, TaskQueue, Worker, current_task
from dbtaskqueue.cli import main

VERSION = "0.1.0"
SCHEMA_VERSION = 2
"""The schema version of a database of 0.1.0."""
EXPECTED: dict[str, Any] = json.loads((HERE / "v0_1_0" / "expected.json").read_text())
IDS: dict[str, int] = EXPECTED["names"]
TASKS: dict[int, dict[str, Any]] = {task["id"]: task for task in EXPECTED["tasks"]}
NAMES = {id: name for name, id in IDS.items()}
FINAL = ("done", "cancelled", "abandoned")


def expected(name: str) -> dict[str, Any]:
    """Return the attributes that version 0.1.0 reads of the task with this name."""
    return TASKS[IDS[name]]


def named(queue: TaskQueue, name: str) -> Task:
    return queue.get(IDS[name])


def ids_in(*states: str) -> Iterable[int]:
    return [id for id, task in TASKS.items() if task["state"] in states]


def migrate(url: str) -> None:
    done = CliRunner().invoke(main, ["--url", url, "migrate"])
    assert done.exit_code == 0, done.output


@pytest.fixture
def upgraded(url: str) -> str:
    """Return the URL of a database of 0.1.0 that was upgraded to the present version."""
    load(url, VERSION)
    assert execute(url, "SELECT version FROM dbtaskqueue_schema") == [(SCHEMA_VERSION,)]
    migrate(url)
    return url


# -- reading ---------------------------------------------------------------------------------------


def test_the_test_data_has_a_task_in_every_state() -> None:
    states = {"pending", "reserved", "running", "failed", "done", "cancelled", "abandoned"}
    assert {task["state"] for task in TASKS.values()} == states


def test_every_task_reads_as_before(upgraded: str) -> None:
    with TaskQueue(upgraded) as queue:
        for id, task in TASKS.items():
            assert read_task(queue.get(id)) == task, NAMES[id]


@pytest.mark.engine("sqlite")
def test_a_file_is_upgraded_when_it_is_opened(url: str) -> None:
    load(url, VERSION)
    with TaskQueue(url) as queue:
        assert [read_task(queue.get(id)) for id in TASKS] == list(TASKS.values())


@pytest.mark.engine("postgresql", "mariadb")
def test_a_server_is_upgraded_by_migrate_only(url: str) -> None:
    load(url, VERSION)
    before = execute(url, "SELECT * FROM dbtaskqueue_task ORDER BY id")
    with pytest.raises(SchemaError, match=f"schema version {SCHEMA_VERSION}.*migrate"):
        TaskQueue(url)
    assert execute(url, "SELECT * FROM dbtaskqueue_task ORDER BY id") == before


@pytest.mark.engine("mariadb")
def test_an_upgrade_that_was_interrupted_is_completed(url: str) -> None:
    """On MariaDB each statement commits by itself, so an upgrade may stop after any of them."""
    load(url, VERSION)
    statements = statements_of(CliRunner().invoke(main, ["--url", url, "migrate", "--sql"]).output)
    assert statements
    for done in range(1, len(statements)):
        with fresh_mariadb_url() as interrupted:
            load(interrupted, VERSION)
            with cursor(interrupted) as its:
                for statement in statements[:done]:
                    its.execute(statement)
            migrate(interrupted)
            with TaskQueue(interrupted) as queue:
                assert [read_task(queue.get(id)) for id in TASKS] == list(TASKS.values()), statements[done - 1]


def test_queues_and_workers_read_as_before(upgraded: str) -> None:
    for name, seen in EXPECTED["queues"].items():
        with TaskQueue(upgraded, name) as queue:
            assert read_queue(queue) == seen, name
    assert read_workers(upgraded) == EXPECTED["workers"]
    assert read_usage(upgraded, IDS["running"]) == {"memory": 52428800, "cpu": 12.5, "processes": 1}


# -- tasks that wait -------------------------------------------------------------------------------


def test_tasks_are_fetched_in_the_same_order_and_retried_after_the_same_delays(upgraded: str) -> None:
    for name, order in EXPECTED["order"].items():
        with TaskQueue(upgraded, name) as queue:
            due = queue.fetch(100, timeout=0)
            assert [task.id for task in due] == order, name
            for task in due:
                assert delay_after_failure(task) == EXPECTED["delays"][str(task.id)], NAMES[task.id]


def test_a_worker_runs_all_due_tasks(upgraded: str) -> None:
    def thumbnail(path: str, width: int = 320) -> list[Any]:
        return [path, width]

    with TaskQueue(upgraded, "waiting") as queue:
        queue.task(name="thumbnail")(thumbnail)
        Worker(queue).run(lambda payload: {"got": payload}, burst=True)
        for id in EXPECTED["order"]["waiting"]:
            result = ["a.png", 640] if id == IDS["function"] else {"got": TASKS[id].get("payload")}
            assert (queue.get(id).state, queue.get(id).result) == ("done", result), NAMES[id]
        assert named(queue, "due in the future").state == "pending"


def test_the_next_attempt_finds_the_checkpoint_and_the_steps(upgraded: str) -> None:
    def import_rows(payload: object) -> list[Any]:
        task = current_task()
        return [task.attempt, task.saved, task.step("fetch", pytest.fail), task.step("validate", pytest.fail)]

    with TaskQueue(upgraded, "steps") as queue:
        Worker(queue).run(import_rows, max_tasks=1)
        rows = {"rows": 3000, "source": "café.csv"}
        assert named(queue, "with a checkpoint").get_result(10) == [2, {"row": 1200}, rows, "valid " * 60]


def test_a_command_runs(upgraded: str) -> None:
    Worker(upgraded, "commands", executor="process", allow_commands=True).run(len, burst=True)
    with TaskQueue(upgraded) as queue:
        task = named(queue, "command")
        assert (task.state, task.result) == ("done", {"exit_code": 0})
        assert task.attempts()[0].output == "red\n::progress 3/10 files\n"
        assert named(queue, "not a command").result == len("plain")


def test_a_paused_queue_stays_paused_until_it_is_resumed(upgraded: str) -> None:
    with TaskQueue(upgraded, "paused") as queue:
        assert queue.fetch(timeout=0) == []
        queue.resume()
        assert [task.id for task in queue.fetch(timeout=10)] == [IDS["in a paused queue"]]


def test_a_task_that_was_enqueued_with_the_clock_ahead_is_due_now(upgraded: str) -> None:
    with TaskQueue(upgraded, "ahead") as queue:
        assert [task.id for task in queue.fetch(timeout=10)] == [IDS["enqueued with the clock ahead"]]


def test_an_unfinished_task_keeps_its_key_and_ids_are_not_used_again(upgraded: str) -> None:
    with TaskQueue(upgraded) as queue:
        for task in TASKS.values():
            if "key" not in task:
                continue
            with TaskQueue(upgraded, task["queue"]) as its_queue:
                found = its_queue.enqueue("other", key=task["key"])
            if task["state"] in FINAL:
                assert found.id > EXPECTED["highest"]
            else:
                assert read_task(found) == task
        assert queue.enqueue().id > EXPECTED["highest"]


# -- what operators do -----------------------------------------------------------------------------


def test_an_ended_or_failed_task_is_retried(upgraded: str) -> None:
    numbers = {"failed, retried and failed": 3, "abandoned and retried": 2}  # were retried by version 0.1.0
    with TaskQueue(upgraded) as queue:
        for id in ids_in("failed", *FINAL):
            before = TASKS[id]
            task = queue.retry(id)
            assert (task.state, task.error, task.result, task.finished_at) == ("pending", None, None, None), NAMES[id]
            number = numbers.get(NAMES[id], before.get("max_attempts"))
            assert task.max_attempts == (None if number is None else before["attempt"] + number), NAMES[id]
            assert read_task(task).get("attempts", []) == before.get("attempts", []), NAMES[id]
    with TaskQueue(upgraded, "steps") as queue:
        [task] = queue.fetch(timeout=10)
        assert delay_after_failure(task) == 60, "the delay of a first retry"


def test_a_task_is_cancelled(upgraded: str) -> None:
    with TaskQueue(upgraded) as queue:
        for id in ids_in("pending", "failed", "reserved", "cancelled"):
            queue.cancel(id)
            assert queue.get(id).state == "cancelled", NAMES[id]
        for id in ids_in("running"):
            queue.cancel(id)
            assert (queue.get(id).state, queue.get(id).cancel_requested) == ("running", True), NAMES[id]
        for id in ids_in("done", "abandoned"):
            with pytest.raises(InvalidTransition):
                queue.cancel(id)


def test_a_task_is_suspended_and_continued(upgraded: str) -> None:
    with TaskQueue(upgraded) as queue:
        queue.continue_(IDS["suspended"])
        assert not named(queue, "suspended").suspended
        queue.suspend(IDS["running"])
        assert named(queue, "running").suspended
        with pytest.raises(InvalidTransition):
            queue.suspend(IDS["running in a program"])


def test_tasks_are_purged_and_pruned(upgraded: str) -> None:
    with TaskQueue(upgraded, "held") as queue:
        assert queue.purge() == 6
        assert (queue.stats().abandoned, named(queue, "suspended").suspended) == (6, False)
    with TaskQueue(upgraded, "ended") as queue:
        assert queue.prune(0, states=FINAL) == 12
        assert queue.tasks() == []


# -- tasks of workers that died --------------------------------------------------------------------


def test_tasks_of_lost_workers_are_rescued_and_those_of_live_workers_are_not(upgraded: str) -> None:
    with TaskQueue(upgraded, "rescuer") as queue:
        assert queue.fetch(timeout=0) == []
        lost = [id for id, task in TASKS.items() if task["queue"] in ("lost", "batch", "orphaned")]
        until(lambda: not {queue.get(id).state for id in lost} & {"running", "reserved"}, what="the rescue")

        for name, state, delay in (
            ("lost", "failed", 0),
            ("lost twice", "failed", 200),  # its policy has a retry delay
            ("lost at the last attempt", "abandoned", None),
            ("lost and to be cancelled", "cancelled", None),
            ("orphaned", "failed", 0),
        ):
            task = named(queue, name)
            attempt = task.attempts()[-1]
            assert (task.state, attempt.outcome) == (state, "lost" if state != "cancelled" else state), name
            assert attempt.number == task.attempt == expected(name)["attempt"]
            assert task.token == expected(name)["token"] + 1
            if delay is not None:
                assert attempt.finished_at is not None
                assert (task.start_at - attempt.finished_at).total_seconds() == delay, name
        assert "worker1.example" in (named(queue, "lost").error or "")

        for id in [IDS["reserved by the lost worker"], *EXPECTED["queues"]["batch"]["tasks"]]:
            task, before = queue.get(id), TASKS[id]
            assert (task.state, task.attempt, task.token) == ("pending", 0, before["token"] + 1), NAMES[id]
            assert task.start_at.isoformat() == before["start_at"]
        for id, task in TASKS.items():
            if task["queue"] == "held":
                assert read_task(queue.get(id)) == task, NAMES[id]

    assert set(states_while_running(upgraded, "batch").values()) == {"running"}


def test_tasks_of_a_dead_batch_run_alone(upgraded: str) -> None:
    """A task that runs alone stores its start before it runs. A batch stores its starts together with its outcomes."""
    states = states_while_running(upgraded, "isolated")
    assert states == {number: "running" if number < 4 else "reserved" for number in range(8)}


def states_while_running(url: str, name: str) -> dict[int, str]:
    """Run a queue in batches. Return for each payload the state that other processes saw while its task ran."""
    states: dict[int, str] = {}

    with TaskQueue(url) as other:

        def record_states(payload: int) -> None:
            states[payload] = str(other.get(current_task().id).state)

        Worker(url, name).run(record_states, burst=True, batch=8)
    return states


# -- the program of 0.1.0 on the upgraded database -------------------------------------------------

OLD_PROGRAM = """
import json, sys
from dbtaskqueue import SchemaError, TaskQueue, Worker
from upgrades.reading import read_task

try:
    queue = TaskQueue(sys.argv[1], "resumed")
except SchemaError as error:
    print(json.dumps({"refused": str(error)}))
    sys.exit()
with queue:
    tasks = [read_task(queue.get(id)) for id in json.loads(sys.argv[2])]
    Worker(queue).run(str.upper, burst=True)
    new = queue.enqueue("new")
    Worker(queue).run(str.upper, burst=True)
    results = [task.result for task in queue.tasks()]
print(json.dumps({"tasks": tasks, "results": results}))
"""


@pytest.fixture(scope="module")
def old_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory with the source of version 0.1.0."""
    try:
        return extract_program(VERSION, tmp_path_factory.mktemp("released"))
    except NoHistory as error:
        pytest.skip(f"NO PROGRAM OF VERSION {VERSION}: {error}; THAT IT IS REFUSED BY A NEW SCHEMA IS NOT TESTED")


@pytest.mark.parametrize("raised", [False, True])
def test_the_old_program_works_or_is_refused_as_oldest_says(upgraded: str, old_program: Path, raised: bool) -> None:
    if raised:
        version = max(SCHEMA_VERSION + 1, *execute(upgraded, "SELECT version FROM dbtaskqueue_schema")[0])
        execute(upgraded, f"UPDATE dbtaskqueue_schema SET version = {version}, oldest = {version}")
    [(version, oldest)] = execute(upgraded, "SELECT version, oldest FROM dbtaskqueue_schema")
    path = f"{old_program}:{HERE.parent}"
    did = json.loads(run_python(OLD_PROGRAM, upgraded, json.dumps([*TASKS]), PYTHONPATH=path))
    if oldest > SCHEMA_VERSION:
        assert list(did) == ["refused"]
        assert f"version {version}" in did["refused"]
        assert f"version {oldest}" in did["refused"]
    else:
        assert did == {"tasks": list(TASKS.values()), "results": ["NEW", "GOES"]}


OLD_WORKER = """
import sys, time
from dbtaskqueue import TaskQueue, Worker

def act(payload):
    print("started", flush=True)
    sys.stdin.readline()
    return payload

queue = TaskQueue(sys.argv[1])
queue.enqueue("once")
Worker(queue).run(act, max_tasks=1)
"""


@pytest.mark.engine("sqlite")
def test_a_file_is_not_upgraded_under_a_running_worker(url: str, old_program: Path) -> None:
    """It could not store how its task ends, so the task would run a second time."""
    with ended(spawn(OLD_WORKER, url, PYTHONPATH=str(old_program))) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "started\n"
        with pytest.raises(SchemaError, match=rf"running program of an earlier version \(process {worker.pid}\)"):
            TaskQueue(url)
        worker.communicate("go on\n", timeout=60)
        assert worker.returncode == 0
    with TaskQueue(url) as queue:
        [task] = queue.tasks()
        assert (task.state, task.attempt, task.result) == ("done", 1, "once")
