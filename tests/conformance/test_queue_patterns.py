"""Workers that serve queues by pattern: ``mail*`` and ``*``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from helpers import Background, until

from dbtaskqueue import StoreUnavailable, TaskQueue, Worker
from dbtaskqueue._worker import served
from dbtaskqueue._worker.due import wait_until_due
from dbtaskqueue._worker.membership import Membership
from dbtaskqueue._worker.served import ServedQueues
from dbtaskqueue.monitoring import health
from dbtaskqueue.overview import live_workers, serves


def fill(queue: TaskQueue, *names: str, tasks: int = 1) -> None:
    """Enqueue tasks into these queues, with their names as payloads."""
    for name in names:
        queue.lane(name).enqueue_many([name] * tasks)


def left(queue: TaskQueue) -> dict[str, int]:
    """Return the number of pending tasks of each queue that has any."""
    return {info.name: info.pending for info in queue.queues() if info.pending}


@contextlib.contextmanager
def serving(queue: TaskQueue, *names: str) -> Iterator[list[str]]:
    """Run a worker in the background; yield the payloads that it has run."""
    ran: list[str] = []
    worker = Worker(queue, queues=names)
    running = Background(lambda: worker.run(ran.append))
    try:
        until(lambda: any(info.queues for info in queue.workers()), what="the worker's row")
        yield ran
    finally:
        worker.stop()
        running.join()


# -- what is served --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "served_names"),
    [
        (["mail*"], ["mail", "mail.bulk", "mailing"]),
        (["mail.*"], ["mail.bulk"]),
        (["*"], ["Mail", "default", "mail", "mail.bulk", "mailing", "news"]),
        (["news", "mail.*", "mail.b*"], ["mail.bulk", "news"]),
        (["none*"], []),
    ],
    ids=str,
)
def test_a_worker_serves_every_queue_that_matches_and_no_other(
    queue: TaskQueue, patterns: list[str], served_names: list[str]
) -> None:
    names = ["Mail", "default", "mail", "mail.bulk", "mailing", "news"]
    fill(queue, *names, tasks=2)
    ran: list[str] = []
    Worker(queue, queues=patterns).run(ran.append, burst=True)
    assert sorted(ran) == sorted(served_names * 2)
    assert left(queue) == dict.fromkeys(set(names) - {*served_names}, 2)


def test_queues_that_appear_later_are_served_too(queue: TaskQueue, other: TaskQueue) -> None:
    with serving(queue, "mail*") as ran:
        for name in ("mail", "mail.a", "mail.b"):
            fill(other, name, "news")
            until(lambda name=name: name in ran, what=f"the task of {name}")
        fill(other, "mail.a")
        until(lambda: ran.count("mail.a") == 2, what="another task of a queue that is known now")
    assert sorted(ran) == ["mail", "mail.a", "mail.a", "mail.b"]
    assert left(other) == {"news": 3}


def test_a_burst_includes_queues_that_its_own_tasks_fill(queue: TaskQueue) -> None:
    ran: list[int] = []

    def run(number: int) -> None:
        ran.append(number)
        if number < 3:
            queue.lane(f"step.{number + 1}").enqueue(number + 1)

    queue.lane("step.0").enqueue(0)
    Worker(queue, queues=["step.*"]).run(run, burst=True)
    assert ran == [0, 1, 2, 3]


def test_queues_are_served_in_rotation(queue: TaskQueue) -> None:
    fill(queue, "a1", "a2", tasks=4)
    ran: list[str] = []

    def run(name: str) -> None:
        if len(ran) == 2:
            fill(queue, "a3", tasks=4)
        ran.append(name)

    Worker(queue, queues=["a1", "a*"]).run(run, burst=True, batch=1)
    assert ran[:4] == ["a1", "a2"] * 2
    assert sorted(ran) == ["a1"] * 4 + ["a2"] * 4 + ["a3"] * 4


def test_a_new_queue_takes_its_turn_in_the_rotation(queue: TaskQueue) -> None:
    fill(queue, "a1", "a2")
    queues = ServedQueues(queue.store, ["a*", "always"])
    assert queues.read()
    assert list(queues.names) == ["always", "a1", "a2"]
    queues.rotate()
    fill(queue, "a0")
    assert queues.read()
    assert list(queues.names) == ["a1", "a2", "always", "a0"]
    assert not queues.read()
    for name in ("a1", "always"):
        lane = queue.lane(name)
        lane.purge()
        lane.prune(0, states=["abandoned"])
    assert not queues.read()
    assert list(queues.names) == ["a2", "always", "a0"], "a queue without tasks no longer exists"


def test_a_paused_queue_that_matches_is_left_alone(queue: TaskQueue) -> None:
    fill(queue, "mail.a", "mail.b")
    queue.lane("mail.b").pause()
    ran: list[str] = []
    Worker(queue, queues=["mail*"]).run(ran.append, burst=True)
    assert ran == ["mail.a"]


@pytest.mark.one_engine("decided in Python, with a query that other tests run on every engine")
def test_a_worker_waits_for_a_database_that_is_unavailable_at_first(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(queue, "mail.a")
    read, failures = queue.store.queues, iter([StoreUnavailable("away")] * 3)

    def queues() -> list[str]:
        for error in failures:
            raise error
        return read()

    monkeypatch.setattr(queue.store, "queues", queues)
    ran: list[str] = []
    Worker(queue, queues=["mail*"]).run(ran.append, burst=True)
    assert ran == ["mail.a"]


# -- how often the names are read ------------------------------------------------------------------


class Reads:
    """Counts how often a handle reads the names of all queues."""

    def __init__(self, queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
        self._read = queue.store.queues
        self.count = 0
        monkeypatch.setattr(queue.store, "queues", self._counted)

    def _counted(self) -> list[str]:
        self.count += 1
        return self._read()


@pytest.mark.one_engine("decided in Python")
def test_on_a_server_the_names_are_read_at_intervals(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue.store.wakeups, "sees_all_queues", False)
    monkeypatch.setattr(served, "_INTERVAL", 1000)
    reads, queues = Reads(queue, monkeypatch), ServedQueues(queue.store, ["*"])
    for _ in range(100):
        queues.read_if_due()
    assert reads.count == 1
    assert 900 < queues.seconds_to_read <= 1000
    monkeypatch.setattr(served, "_INTERVAL", 0)
    monkeypatch.setattr(served, "_SHARE", 1e9)
    assert queues.read() is False
    queues.read_if_due()
    assert reads.count == 3


@pytest.mark.engine("sqlite")
def test_on_a_file_the_names_are_read_after_each_change(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "_INTERVAL", 1000)
    reads, queues = Reads(queue, monkeypatch), ServedQueues(queue.store, ["*"])
    for name in ("a", "b"):
        fill(queue, name)
        assert queues.read_if_due()
    assert reads.count == 2


@pytest.mark.engine("postgresql")
def test_an_idle_worker_reads_the_names_while_it_waits(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wait is long, since a notification ends it; but no notification comes for a queue that it does not know."""
    fill(queue, "a")
    reads, queues = Reads(queue, monkeypatch), ServedQueues(queue.store, ["*"])
    assert wait_until_due(queue.store, queues, 0, commands=False)
    queue.lane("a").purge()
    monkeypatch.setattr(served, "_INTERVAL", 0.1)
    waiting = Background(lambda: [wait_until_due(queue.store, queues, 600, commands=False) for _ in range(2)])
    with TaskQueue(queue.url) as producer:
        until(lambda: reads.count >= 4, what="reads of the names in the wait")
        fill(producer, "b")
    assert waiting.join()
    assert list(queues.names) == ["a", "b"]


@pytest.mark.one_engine("decided in Python")
def test_a_worker_without_patterns_never_reads_the_names(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads(queue, monkeypatch)
    fill(queue, "a", "b")
    Worker(queue, queues=["a", "b"]).run(lambda payload: None, burst=True)
    assert queue.lane("a").fetch(timeout=0) == []
    assert reads.count == 0


# -- the worker's row ------------------------------------------------------------------------------


def test_the_row_of_a_worker_has_its_patterns(queue: TaskQueue, other: TaskQueue) -> None:
    fill(other, "default", "mail", "mail.a", "news")
    for name in ("mail", "mail.a"):
        other.lane(name).pause()
    with serving(queue, "mail*", "default"):
        [info] = other.workers()
        assert info.queues == ["mail*", "default"]
        assert {each.name: each.workers for each in other.queues()} == {"default": 1, "mail": 1, "mail.a": 1, "news": 0}
        [worker] = live_workers(other.store)
        assert [serves(worker, name) for name in ("mail", "mail.z", "mai", "default", "default2")] == [
            *(True, True, False, True, False)
        ]


@pytest.mark.one_engine("decided in Python")
@pytest.mark.parametrize(
    ("stored", "answer"),
    [
        (None, None),
        ("", None),
        ("7", None),
        ('["mail"]', True),
        ('["*"]', True),
        ('["m"]', False),
        ("[1, null]", False),
    ],
)
def test_whether_a_row_serves_a_queue(queue: TaskQueue, stored: str | None, answer: bool | None) -> None:
    member = Membership(queue.store, 30.0, queue.events, runs_tasks=False)
    member.join()
    [row] = queue.store.workers()
    assert serves(row._replace(queues=stored), "mail") is answer
    member.leave()


@pytest.mark.one_engine("decided in Python")
@pytest.mark.parametrize(("pattern", "is_found"), [("mail*", True), ("*", True), ("news*", False)])
def test_doctor_knows_workers_that_serve_by_pattern(queue: TaskQueue, pattern: str, is_found: bool) -> None:
    queue.task(name="missing")(print)
    queue.lane("mail.a").enqueue_all([queue.functions.find("missing").bind()])  # type: ignore[union-attr]
    member = Membership(
        queue.store, 30.0, queue.events, runs_tasks=False, executor="thread", queues=[pattern], functions=["known"]
    )
    member.join()
    found = [each.name for each in health.check(queue.store, queue.store.queues(), lambda *words, queue=None: "")]
    assert ("function" in found) is is_found
    member.leave()


# -- what a pattern is -----------------------------------------------------------------------------


@pytest.mark.one_engine("refused before a query is sent")
@pytest.mark.parametrize(
    "pattern", ["a*b", "*a", "**", "a**", "ä*", " *", "a b*", "x" * 129 + "*", "*\n", ""], ids=ascii
)
def test_a_star_is_allowed_at_the_end_only(url: str, pattern: str) -> None:
    with pytest.raises(ValueError, match="queue's name"):
        Worker(url, queues=["good", pattern])
    with pytest.raises(ValueError, match="queue's name"):
        Worker(url, queue=pattern)


@pytest.mark.one_engine("refused before a query is sent")
def test_producers_and_fetch_take_no_pattern(queue: TaskQueue) -> None:
    function = queue.task(name="f")(print)
    with pytest.raises(ValueError, match="queue's name"):
        queue.lane("mail*")
    with pytest.raises(ValueError, match="queue's name"):
        TaskQueue(queue.url, queue="*")
    with pytest.raises(ValueError, match="queue's name"):
        function.using(queue="mail*").enqueue()


@pytest.mark.one_engine("decided in Python")
def test_a_worker_of_a_url_may_have_patterns_only(queue: TaskQueue) -> None:
    fill(queue, "mail.a", "news")
    ran: list[str] = []
    worker = Worker(queue.url, queue="mail*")
    worker.run(ran.append, burst=True)
    assert (worker.queues, ran) == (["mail*"], ["mail.a"])
    assert "mail*" in repr(worker)
