"""Long tasks: progress, checkpoints, steps, and a transaction that also finishes the task."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import Background, ended, run_python, spawn, until

from dbtaskqueue import (
    LeaseLost,
    PayloadError,
    Progress,
    ReleaseTask,
    RetryPolicy,
    StoreUnavailable,
    TaskCancelled,
    TaskQueue,
    Worker,
    current_task,
)

EAGER = RetryPolicy(delay=0, max_attempts=5)


def run(queue: TaskQueue, callback: Callable[..., Any], **options: Any) -> None:
    Worker(queue).run(callback, **{"burst": True, **options})


# -- progress --------------------------------------------------------------------------------------


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_progress_is_none_unless_reported(queue: TaskQueue) -> None:
    task = queue.enqueue()
    assert task.progress is None
    run(queue, lambda payload: None)
    assert task.refresh().progress is None


@pytest.mark.parametrize("batch", [1, 5])
def test_the_last_progress_is_always_stored(queue: TaskQueue, batch: int) -> None:
    tasks = queue.enqueue_many(range(3))

    def callback(payload: int) -> None:
        for done in range(101):
            current_task().progress(done, 100, f"step {done} of {payload}")

    run(queue, callback, batch=batch)
    for number, task in enumerate(tasks):
        assert task.refresh().progress == Progress(100, 100, f"step 100 of {number}", 0.0)


def test_progress_is_seen_while_the_task_runs(queue: TaskQueue) -> None:
    task = queue.enqueue()
    proceed = threading.Event()

    def callback(payload: None) -> None:
        current_task().progress(1, 4)
        current_task().progress(2, 4, "half")
        assert proceed.wait(30)

    worker = Background(lambda: run(queue, callback))
    until(lambda: task.refresh().progress)
    assert task.state == "running"
    assert task.progress is not None
    assert task.progress[:3] == (2, 4, "half")
    assert task.progress.eta is not None
    assert task.progress.eta >= 0
    proceed.set()
    worker.join()


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_each_attempt_starts_without_progress(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=EAGER)
    seen: list[Progress | None] = []

    def callback(payload: None) -> None:
        seen.append(queue.get(current_task().id).progress)
        if current_task().attempt == 1:
            current_task().progress(7)
            raise ValueError

    run(queue, callback, batch=1)
    assert seen == [None, None]
    assert task.refresh().progress is None


def test_progress_of_a_failed_attempt_stays_until_the_next(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=3600))

    def callback(payload: None) -> None:
        current_task().progress(7, None, "before the end")
        raise ValueError

    run(queue, callback)
    assert task.refresh().progress == Progress(7, None, "before the end", None)


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("arguments", [("1",), (None,), (float("nan"),), (float("inf"),), (1, "2"), (1, float("inf"))])
def test_progress_that_is_not_a_number_is_refused(queue: TaskQueue, arguments: tuple[Any, ...]) -> None:
    queue.enqueue(max_attempts=1)
    errors: list[str] = []

    def callback(payload: None) -> None:
        with pytest.raises(ValueError, match="number") as caught:
            current_task().progress(*arguments)
        errors.append(str(caught.value))

    run(queue, callback)
    assert errors


@pytest.mark.one_engine("refused before a query is sent")
def test_a_message_is_shortened_and_escaped(queue: TaskQueue) -> None:
    task = queue.enqueue()
    run(queue, lambda payload: current_task().progress(1, 2, "\ud800\x00" + "x" * 10_000))
    progress = task.refresh().progress
    assert progress is not None
    assert progress.message is not None
    assert progress.message.startswith("\\ud800\\x00xxx")
    assert len(progress.message) < 600


# -- checkpoint ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 5])
def test_the_next_attempt_finds_the_checkpoint(queue: TaskQueue, batch: int) -> None:
    task = queue.enqueue("x", retry=EAGER)
    queue.enqueue("other")
    seen: list[Any] = []

    def callback(payload: str) -> Any:
        here = current_task()
        if payload == "other":
            assert here.saved is None
            return None
        seen.append(here.saved)
        here.checkpoint({"done": here.attempt, "text": "ü😀" * 500})
        assert here.saved == {"done": here.attempt, "text": "ü😀" * 500}
        if here.attempt == 1:
            raise ValueError
        if len(seen) == 2:
            raise ReleaseTask
        return "end"

    run(queue, callback, batch=batch)
    assert seen == [None, {"done": 1, "text": "ü😀" * 500}, {"done": 2, "text": "ü😀" * 500}]
    assert task.refresh().result == "end"
    assert task.attempt == 2


def test_a_checkpoint_is_visible_to_other_processes_when_it_returns(queue: TaskQueue, url: str) -> None:
    task = queue.enqueue()
    seen: list[str] = []

    def callback(payload: None) -> None:
        current_task().checkpoint([1, 2])
        code = (
            "import sys; from dbtaskqueue import TaskQueue; print(TaskQueue(sys.argv[1]).store.saved(int(sys.argv[2])))"
        )
        seen.append(run_python(code, url, task.id))

    run(queue, callback)
    assert seen == ["{'checkpoint': '[1,2]'}\n"]


def test_a_checkpoint_survives_the_worker(queue: TaskQueue, url: str) -> None:
    queue.enqueue(retry=EAGER)
    code = """
import os, sys
from dbtaskqueue import Worker, current_task
def work(payload):
    current_task().checkpoint("got here")
    current_task().progress(1)
    os._exit(7)
Worker(sys.argv[1]).run(work)
"""
    with ended(spawn(code, url)) as process:
        assert process.wait(60) == 7
    seen: list[Any] = []
    run(queue, lambda payload: seen.append(current_task().saved))
    assert seen == ["got here"]


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize(
    "value", [float("nan"), object(), {1: 2}, "\ud800", "x" * (1024 * 1024)], ids=lambda v: ascii(v)[:12]
)
def test_a_value_that_json_cannot_represent_is_refused_as_a_checkpoint(queue: TaskQueue, value: Any) -> None:
    queue.enqueue()
    seen: list[Any] = []

    def callback(payload: None) -> None:
        current_task().checkpoint("good")
        with pytest.raises(PayloadError, match="checkpoint"):
            current_task().checkpoint(value)
        seen.append(current_task().saved)

    run(queue, callback)
    assert seen == ["good"]


@pytest.mark.one_engine("the retries are in Python")
def test_a_checkpoint_waits_for_an_unavailable_database(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    task = queue.enqueue()
    keep, refused = queue.store.save, [1, 2]

    def fail_twice(*values: Any) -> bool:
        if refused:
            raise StoreUnavailable(f"unavailable {refused.pop()}")
        return keep(*values)

    def callback(payload: None) -> object:
        current_task().checkpoint("kept")
        return current_task().saved

    monkeypatch.setattr(queue.store, "save", fail_twice)
    run(queue, callback)
    assert not refused
    assert (task.refresh().state, task.result, task.attempt) == ("done", "kept", 1)


@pytest.mark.parametrize("what", ["checkpoint", "step", "transaction"])
def test_a_fenced_holder_stores_nothing(queue: TaskQueue, what: str) -> None:
    """A purge takes the claim away before the worker knows of it."""
    task = queue.enqueue()
    raised: list[str] = []

    def callback(payload: None) -> None:
        here = current_task()
        queue.purge()
        try:
            if what == "checkpoint":
                here.checkpoint(1)
            elif what == "step":
                here.step("one", lambda: 1)
            else:
                with here.transaction():
                    raised.append("inside")
        except (LeaseLost, TaskCancelled) as error:
            raised.append(type(error).__name__)

    run(queue, callback)
    assert raised in (["LeaseLost"], ["TaskCancelled"])
    assert queue.store.saved(task.id) == {}
    assert task.refresh().state == "abandoned"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("what", ["progress", "checkpoint", "step", "transaction"])
def test_each_call_in_a_cancelled_task_raises_task_cancelled(queue: TaskQueue, what: str) -> None:
    task = queue.enqueue()
    reasons: list[str] = []

    def callback(payload: None) -> None:
        here = current_task()
        task.cancel()
        until(lambda: here.cancelled)
        calls = {
            "progress": lambda: here.progress(1),
            "checkpoint": lambda: here.checkpoint(1),
            "step": lambda: here.step("s", lambda: 1),
            "transaction": lambda: here.transaction().__enter__(),
        }
        for _ in range(2):
            try:
                calls[what]()
            except TaskCancelled as error:
                reasons.append(str(error))
        calls[what]()

    run(queue, callback)
    assert len(reasons) == 2
    assert task.refresh().state == "cancelled"


def test_an_operators_retry_of_a_done_task_starts_without_a_checkpoint(queue: TaskQueue) -> None:
    task = queue.enqueue()
    seen: list[Any] = []

    def callback(payload: None) -> str:
        seen.append((current_task().saved, current_task().step("s", lambda: len(seen))))
        current_task().checkpoint("kept")
        return "x" * 1000

    run(queue, callback)
    assert queue.retry(task.id).result is None
    run(queue, callback)
    assert seen == [(None, 0), (None, 1)]


def test_an_operators_retry_of_a_failed_task_keeps_its_checkpoint(queue: TaskQueue) -> None:
    task = queue.enqueue(max_attempts=1)
    seen: list[Any] = []

    def callback(payload: None) -> None:
        seen.append(current_task().saved)
        current_task().checkpoint("kept")
        raise ValueError

    run(queue, callback)
    queue.retry(task.id)
    run(queue, callback)
    assert seen == [None, "kept"]


def test_a_checkpoint_is_pruned_with_its_task(queue: TaskQueue) -> None:
    task = queue.enqueue("x" * 1000)

    def callback(payload: str) -> None:
        current_task().checkpoint("kept")
        current_task().progress(1)

    run(queue, callback)
    assert queue.store.saved(task.id) == {"checkpoint": '"kept"'}
    assert queue.prune(0) == 1
    assert queue.store.saved(task.id) == {}


# -- steps -----------------------------------------------------------------------------------------


def test_a_step_is_run_once_over_all_attempts(queue: TaskQueue) -> None:
    task = queue.enqueue(retry=EAGER)
    ran: list[str] = []

    def ran_in(name: str, value: Any = None) -> Any:
        ran.append(f"{name} in {current_task().attempt}")
        return value

    def callback(payload: None) -> list[Any]:
        here = current_task()
        results = [here.step("a", ran_in, "a", value=(1, 2)), here.step("b", ran_in, "b")]
        if here.attempt == 1:
            raise ValueError
        return [*results, here.step("c", ran_in, "c", "x" * 2000)]

    run(queue, callback, batch=1)
    assert ran == ["a in 1", "b in 1", "c in 2"]
    assert task.refresh().result == [[1, 2], None, "x" * 2000]


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_step_that_fails_is_run_again(queue: TaskQueue) -> None:
    queue.enqueue(retry=EAGER)
    ran: list[int] = []

    def fragile() -> str:
        ran.append(current_task().attempt)
        if len(ran) == 1:
            raise ValueError
        return "well"

    run(queue, lambda payload: current_task().step("fragile", fragile), batch=1)
    assert ran == [1, 2]


@pytest.mark.one_engine("refused before a query is sent")
def test_a_name_used_twice_is_an_error(queue: TaskQueue) -> None:
    task = queue.enqueue(max_attempts=1)

    def callback(payload: None) -> None:
        current_task().step("twice", lambda: 1)
        current_task().step("twice", lambda: 2)

    run(queue, callback)
    assert "used the step 'twice' already" in (task.refresh().error or "")


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", 7, None])
def test_a_bad_name_of_a_step(queue: TaskQueue, name: Any) -> None:
    queue.enqueue()
    seen: list[str] = []

    def callback(payload: None) -> None:
        with pytest.raises(ValueError, match="step"):
            current_task().step(name, lambda: seen.append("ran"))

    run(queue, callback)
    assert seen == []


def test_names_of_steps_are_compared_exactly(queue: TaskQueue) -> None:
    names = ["a", "A", "ä", "a ", "payload", "result", "checkpoint", "x" * 200]
    task = queue.enqueue({"p": "x" * 1000})

    def callback(payload: Any) -> Any:
        current_task().checkpoint("c")
        assert [current_task().step(name, lambda name=name: name) for name in names] == names
        return payload

    run(queue, callback)
    assert task.refresh().state == "done", task.error
    assert task.result == {"p": "x" * 1000}


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_checkpoint_of_another_thread_while_the_saved_one_is_read(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = queue.enqueue()
    kept, store, read = queue.store.saved, threading.Event(), threading.Event()

    def slowly(id: int) -> dict[str, str]:
        found = kept(id)
        read.set()
        store.wait(0.5)  # returns early if the other thread need not wait for this one
        return found

    monkeypatch.setattr(queue.store, "saved", slowly)

    def callback(payload: None) -> Any:
        here = current_task()

        def keep() -> None:
            read.wait()
            here.checkpoint("new")
            store.set()

        thread = threading.Thread(target=keep)
        thread.start()
        assert here.saved is None
        thread.join()
        return here.saved

    run(queue, callback)
    assert task.refresh().result == "new"


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_steps_and_progress_from_any_thread_of_the_task(queue: TaskQueue) -> None:
    task = queue.enqueue()

    def callback(payload: None) -> Any:
        here = current_task()
        threads = [threading.Thread(target=lambda n=n: here.step(f"step {n}", lambda: n)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        here.progress(8, 8)
        return [here._all_saved()[f"step:step {n}"] for n in range(8)]

    run(queue, callback)
    assert task.refresh().result == [str(n) for n in range(8)]


# -- transaction -----------------------------------------------------------------------------------


def execute(connection: Any, statement: str) -> list[Any]:
    cursor = connection.cursor()
    cursor.execute(statement)
    return list(cursor.fetchall()) if cursor.description else []


@pytest.fixture
def rows(queue: TaskQueue, engine: str, url: str) -> Iterator[Callable[[], list[int]]]:
    """Create a table of the application; return a function that reads its numbers."""
    store: Any = queue.store
    with store._connections.own_transaction() as tx:
        execute(tx.connection, "CREATE TABLE IF NOT EXISTS app_numbers (number INTEGER)")

    def read() -> list[int]:
        with store._connections.own_transaction() as tx:
            return [row[0] for row in execute(tx.connection, "SELECT number FROM app_numbers ORDER BY number")]

    yield read
    with store._connections.own_transaction() as tx:
        execute(tx.connection, "DROP TABLE app_numbers")


@pytest.mark.pooled("transactions")
@pytest.mark.parametrize("batch", [1, 5])
def test_writes_and_the_state_done_commit_together(queue: TaskQueue, rows: Callable[[], list[int]], batch: int) -> None:
    tasks = queue.enqueue_many([1, 2, 3])

    def callback(payload: int) -> str:
        with current_task().transaction({"number": payload, "text": "x" * 1000}) as connection:
            execute(connection, f"INSERT INTO app_numbers VALUES ({payload})")
        assert queue.get(current_task().id).state == "done"
        return "what is returned afterwards changes nothing"

    run(queue, callback, batch=batch)
    assert rows() == [1, 2, 3]
    for number, task in enumerate(tasks, start=1):
        assert task.refresh().result == {"number": number, "text": "x" * 1000}
        assert [attempt.outcome for attempt in task.attempts()] == ["done"]


@pytest.mark.pooled("transactions")
def test_an_exception_in_the_block_writes_nothing(queue: TaskQueue, rows: Callable[[], list[int]]) -> None:
    task = queue.enqueue(retry=RetryPolicy(delay=3600))

    def callback(payload: None) -> None:
        with current_task().transaction() as connection:
            execute(connection, "INSERT INTO app_numbers VALUES (1)")
            raise ZeroDivisionError

    run(queue, callback)
    assert rows() == []
    assert task.refresh().state == "failed"
    assert "ZeroDivisionError" in (task.error or "")


@pytest.mark.pooled("transactions")
def test_a_lost_claim_rolls_back_the_transaction(queue: TaskQueue, rows: Callable[[], list[int]]) -> None:
    task = queue.enqueue()

    def callback(payload: None) -> None:
        queue.purge()
        with current_task().transaction() as connection:
            execute(connection, "INSERT INTO app_numbers VALUES (1)")

    run(queue, callback)
    assert rows() == []
    assert task.refresh().state == "abandoned"


@pytest.mark.one_engine("the answer is lost in Python, above the engines")
@pytest.mark.parametrize(
    ("became", "seen", "state"),
    [
        ("stored", ["continued"], "done"),
        ("rolled back", ["StoreUnavailable"], "failed"),
        ("rolled back, and another claim is done", ["StoreUnavailable"], "done"),
    ],
)
def test_a_transaction_whose_answer_was_lost_is_checked(
    queue: TaskQueue, other: TaskQueue, monkeypatch: pytest.MonkeyPatch, became: str, seen: list[str], state: str
) -> None:
    task, start = queue.enqueue(), queue.store.transaction
    saw: list[str] = []

    @contextlib.contextmanager
    def unanswered(*values: Any) -> Iterator[Any]:
        with contextlib.suppress(ZeroDivisionError), start(*values) as connection:
            yield connection
            if became != "stored":
                raise ZeroDivisionError
        if became.endswith("another claim is done"):
            other.purge()
            other.retry(task.id)
            with other.fetch(timeout=10)[0] as again:
                again.result = "its result"
        raise StoreUnavailable("no answer", maybe_done=True)

    def callback(payload: None) -> None:
        try:
            with current_task().transaction("ours"):
                pass
            saw.append("continued")
        except StoreUnavailable as error:
            saw.append(type(error).__name__)
            raise

    monkeypatch.setattr(queue.store, "transaction", unanswered)
    run(queue, callback)
    assert saw == seen
    assert task.refresh().state == state
    assert task.result == {"stored": "ours", "rolled back": None}.get(became, "its result")


@pytest.mark.pooled("transactions")
def test_a_transaction_that_the_block_ends_itself(queue: TaskQueue, rows: Callable[[], list[int]]) -> None:
    task = queue.enqueue(max_attempts=1)

    def callback(payload: None) -> None:
        with current_task().transaction() as connection:
            execute(connection, "INSERT INTO app_numbers VALUES (1)")
            connection.commit()

    run(queue, callback)
    assert task.refresh().state == "abandoned"
    assert "let the end of the block commit it" in (task.error or "")


def test_an_error_after_the_block_does_not_undo_it(queue: TaskQueue, rows: Callable[[], list[int]]) -> None:
    task = queue.enqueue(retry=EAGER)

    def callback(payload: None) -> None:
        with current_task().transaction("stored") as connection:
            execute(connection, "INSERT INTO app_numbers VALUES (1)")
        raise ValueError

    run(queue, callback)
    assert rows() == [1]
    assert (task.refresh().state, task.result) == ("done", "stored")


KILLED = """
import os, sys
from dbtaskqueue import Worker, current_task
url, at = sys.argv[1:]
def work(payload):
    if at == "before":
        os._exit(9)
    with current_task().transaction("done") as connection:
        cursor = connection.cursor()
        cursor.execute("INSERT INTO app_numbers VALUES (%d)" % current_task().attempt)
        if at == "inside":
            os._exit(9)
    os._exit(9)
Worker(url).run(work)
"""


@pytest.mark.pooled("transactions")
@pytest.mark.parametrize("at", ["before", "inside", "after"])
def test_killed_at_each_point_rows_and_done_agree(
    queue: TaskQueue, url: str, rows: Callable[[], list[int]], at: str
) -> None:
    task = queue.enqueue(retry=EAGER)
    with ended(spawn(KILLED, url, at)) as process:
        assert process.wait(60) == 9
    assert rows() == ([1] if at == "after" else [])
    assert (task.refresh().state == "done") == (at == "after")

    def callback(payload: None) -> None:
        with current_task().transaction("done") as connection:
            execute(connection, f"INSERT INTO app_numbers VALUES ({current_task().attempt})")

    run(queue, callback)
    assert rows() == ([1] if at == "after" else [2])
    assert task.refresh().state == "done"
