"""Log events: their fields, one event for each outage, and no handlers set up by the library."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator

import pytest
from helpers import ended, spawn

from dbtaskqueue import RetryPolicy, TaskQueue, Worker
from dbtaskqueue._system.log import event, logger
from dbtaskqueue.events import Events, Outage


class Kept(logging.Handler):
    """A handler that keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def of(self, message: str) -> list[logging.LogRecord]:
        """Return the events that start with this message."""
        return [record for record in self.records if record.getMessage().startswith(message)]

    def fields(self, message: str) -> list[dict[str, object]]:
        """Return the fields of these events."""
        return [vars(record)["fields"] for record in self.of(message)]


@pytest.fixture
def kept() -> Iterator[Kept]:
    """Collect what the library logs in this test."""
    handler = Kept()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.setLevel(level)
    logger.removeHandler(handler)


def test_an_event_has_its_fields_in_the_record_and_in_the_text(kept: Kept) -> None:
    event(logging.WARNING, "something happened", task_id=7, queue="mail")
    [record] = kept.records
    assert (record.name, record.levelno) == ("dbtaskqueue", logging.WARNING)
    assert record.getMessage() == "something happened task_id=7 queue=mail"
    assert vars(record)["fields"] == {"task_id": 7, "queue": "mail"}


def test_a_percent_sign_is_no_format(kept: Kept) -> None:
    event(logging.INFO, "100 %s", error="%d %(x)s")
    assert kept.records[0].getMessage() == "100 %s error=%d %(x)s"


def test_an_event_below_the_level_is_not_formatted(kept: Kept) -> None:
    class Costly:
        def __str__(self) -> str:
            raise AssertionError("it was formatted")

    logger.setLevel(logging.WARNING)
    event(logging.INFO, "unheard", value=Costly())
    assert kept.records == []


@pytest.mark.parametrize(
    ("silent", "levels"),
    [(False, [logging.ERROR, logging.WARNING]), (True, [logging.DEBUG, logging.DEBUG])],
)
def test_an_outage_is_logged_once_and_its_end_once(kept: Kept, silent: bool, levels: list[int]) -> None:
    outage = Outage("worker", Events(), silent=silent)
    outage.ends()
    for _ in range(3):
        outage.starts(OSError("gone"))
    outage.ends()
    outage.ends()
    assert [record.levelno for record in kept.records] == levels
    assert vars(kept.records[1])["fields"] == {"failures": 3}


def test_a_worker_logs_its_tasks_without_payloads_and_results(queue: TaskQueue, url: str, kept: Kept) -> None:
    done, failed = queue.enqueue_many(["secret payload", "fails"], retry=RetryPolicy(delay=3600))

    def callback(payload: str) -> str:
        if payload == "fails":
            raise ValueError("no luck")
        return "secret result"

    Worker(url).run(callback, burst=True, batch=1)
    [of_done], [of_failed] = kept.fields("task done"), kept.fields("task failed")
    shared = {"queue": "default", "function": None, "attempt": 1}
    assert of_done | {"seconds": 0} == {"task_id": done.id, **shared, "seconds": 0}
    assert of_failed == {
        "task_id": failed.id,
        **shared,
        "max_attempts": 10,
        "retry_in": 3600.0,
        "error": "ValueError",
        "message": "no luck",
    }
    assert not any("secret" in record.getMessage() for record in kept.records)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_failure_is_one_line_with_everything_that_matters(queue: TaskQueue, url: str, kept: Kept, batch: int) -> None:
    queue.enqueue("x", retry=RetryPolicy(delay=0.05, max_attempts=2))

    def callback(payload: str) -> None:
        raise OSError(f"evil \x1b[31m {'!' * 1000}\nand more")

    Worker(url).run(callback, max_tasks=2, batch=batch)
    [first], [last] = kept.of("task failed"), kept.of("task abandoned")
    common = r"task_id=1 queue=default function=None"
    error = r"error=OSError message=evil \\x1b\[31m !{200,300}…"
    assert re.fullmatch(rf"task failed {common} attempt=1 max_attempts=2 retry_in=0\.05 {error}", first.getMessage())
    assert re.fullmatch(rf"task abandoned {common} attempt=2 max_attempts=2 retry_in=never {error}", last.getMessage())
    assert {first.levelno, last.levelno} == {logging.WARNING}


def test_control_characters_in_a_field_are_escaped(kept: Kept) -> None:
    event(logging.WARNING, "something happened", function="\x1b]0;evil\x07\nsecond")
    assert kept.records[0].getMessage() == "something happened function=\\x1b]0;evil\\x07\\nsecond"


UNPREPARED = """
import logging, sys
import dbtaskqueue
before = list(logging.root.handlers), logging.root.level
def fail(payload):
    raise ValueError("no luck")
with dbtaskqueue.TaskQueue(sys.argv[1]) as queue:
    queue.enqueue(1)
    dbtaskqueue.Worker(queue).run(fail, burst=True)
ours = logging.getLogger("dbtaskqueue")
print((list(logging.root.handlers), logging.root.level) == before, ours.level, ours.propagate, ours.handlers)
names = [name for name in logging.root.manager.loggerDict if name.startswith("dbtaskqueue")]
print(*names)
"""


def test_the_library_sets_up_no_handler_so_that_warnings_reach_stderr(url: str) -> None:
    with ended(spawn(UNPREPARED, url)) as process:
        output, errors = process.communicate(timeout=60)
    assert output == "True 0 True []\ndbtaskqueue\n"
    failed = "attempt=1 max_attempts=10 retry_in=60.0 error=ValueError message=no luck"
    assert errors == f"task failed task_id=1 queue=default function=None {failed}\n"
