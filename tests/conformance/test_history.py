"""The history has exactly the attempts that have ended, by any program, and never more.

The oracle is what the tables of tasks and attempts say (``attempts.py``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from attempts import in_history, in_tables
from faults import Faults
from helpers import Background, die_holding, until

from dbtaskqueue import AbandonTask, ReleaseTask, RetryPolicy, StoreUnavailable, TaskQueue, Worker
from dbtaskqueue._maintenance.attempt_history import AttemptHistory
from dbtaskqueue._maintenance.upkeep import TURN, Upkeep, take_samples
from dbtaskqueue._store.contract import End, HistoryRecord, NewTask, fresh
from dbtaskqueue._system import clock
from dbtaskqueue.states import DONE

MINUTE = 60_000_000
HOUR = 60 * MINUTE
Jump = Callable[[int], None]


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jump:
    """Move the clock of this process by so many microseconds."""
    wall, ahead = clock.source, [0]
    monkeypatch.setattr(clock, "source", lambda: wall() + ahead[0])

    def jump(microseconds: int) -> None:
        ahead[0] += microseconds

    return jump


def work(number: int) -> int:
    if number % 10 == 3:
        raise ValueError(number)
    if number % 10 == 5:
        raise AbandonTask("never")
    if number % 10 == 7:
        raise ReleaseTask(3600)
    return number


# -- who counts ------------------------------------------------------------------------------------


def test_a_worker_counts_how_its_attempts_end(queue: TaskQueue, url: str) -> None:
    @queue.task(retry=RetryPolicy(delay=3600))
    def f(number: int) -> int:
        return work(number)

    @queue.task
    def g(number: int) -> int:
        return number

    queue.enqueue_all([f.bind(number) for number in range(40)] + [g.bind(number) for number in range(25)])
    Worker(queue).run(burst=True)
    queue.enqueue_all([g.bind(1)])
    Worker(queue).run(burst=True)
    assert in_history(queue) == in_tables(url) == {"done": 54, "failed": 4, "abandoned": 4, "released": 4}
    by_name = {row.function.rpartition(".")[2]: row for row in queue.store.history_totals()}
    assert (by_name["f"].done, by_name["g"].done) == (28, 26)


def test_functions_that_take_turns_are_told_apart(queue: TaskQueue, url: str) -> None:
    """Ends of a batch are counted together, each under its own function and queue."""
    lane = queue.lane("other")
    for number in range(60):
        (queue if number % 3 else lane).enqueue(number, priority=number % 2)
    Worker(queue, queues=["default", "other"]).run(lambda number: number, burst=True)
    counted = {(row.queue, row.function): row.done for row in queue.store.history_totals()}
    assert counted == {("default", "(callback)"): 40, ("other", "(callback)"): 20}


def test_a_plain_fetch_user_counts(queue: TaskQueue, url: str) -> None:
    queue.enqueue_many(range(6))
    done, failed, cancelled, released, held, reserved = queue.fetch(6)
    for task in (done, failed, cancelled, released, held):
        task.start()
    done.finish()
    failed.fail("x")
    queue.cancel(cancelled.id)
    cancelled.fail("cancelled")
    released.release()
    reserved.release()
    assert sum(point.done for point in queue.history()) == 1, "its own history is up to date"
    assert in_history(queue) == in_tables(url) == {"done": 1, "failed": 1, "cancelled": 1, "released": 1}
    held.finish()
    queue.close()
    with TaskQueue(url) as later:
        assert in_history(later) == in_tables(url)


@pytest.mark.one_engine("decided in Python")
def test_what_another_process_counts_is_not_written_twice_after_a_fork(queue: TaskQueue) -> None:
    history = AttemptHistory(queue.store)
    membership = queue._membership
    before = membership.history._writer
    membership.after_fork_in_child()
    assert membership.history._writer != before != history._writer


def test_attempts_of_lost_workers_count_once(queue: TaskQueue, other: TaskQueue, url: str) -> None:
    queue.enqueue_many(range(4))
    die_holding(url, count=3)
    queue.cancel(queue.tasks(state="running")[0].id)
    rescuers = [each._membership.rescuer for each in (queue, other)]
    until(lambda: sum(rescuer.check() for rescuer in rescuers) or not queue.tasks(state="running"))
    for rescuer in rescuers:
        rescuer.check()
    assert in_history(queue) == in_tables(url) == {"lost": 2, "cancelled": 1}
    [row] = queue.store.history(0)
    assert (row.worker, row.period) == (0, 60)


def test_purged_running_tasks_count_once(queue: TaskQueue, url: str) -> None:
    queue.enqueue_many(range(3))
    first, second, _ = queue.fetch(3)
    first.start()
    second.start()
    queue.purge()
    queue._membership.history()
    assert in_history(queue) == in_tables(url) == {"abandoned": 2}


def test_a_clean_stop_leaves_nothing_uncounted(queue: TaskQueue, url: str) -> None:
    """Running tasks are released when the worker stops, also those that it does not know of."""
    queue.enqueue_many(range(3))
    started = threading.Event()

    def stuck(number: int) -> None:
        started.set()
        worker.stop()
        threading.Event().wait(30 if number == 99 else 0.5)

    worker = Worker(queue, concurrency=1, drain_timeout=0)
    worker.run(stuck, batch=1)
    assert started.is_set()
    assert in_history(queue) == in_tables(url)
    assert in_tables(url)["released"] == 1


@pytest.mark.one_engine("the answers are lost in Python, above the engines")
@pytest.mark.parametrize("stored", [False, True])
def test_an_end_whose_answer_was_lost_counts_once(queue: TaskQueue, url: str, stored: bool) -> None:
    faults = Faults(queue)
    faults.stored, faults.in_doubt, faults.times = stored, True, 3
    faults.lose = lambda asked: asked.get("ends")
    queue.enqueue_many(range(30))
    Worker(queue).run(work, burst=True)
    assert faults.lost == 3
    assert in_history(queue) == in_tables(url)


@pytest.mark.one_engine("the answers are lost in Python, above the engines")
def test_counts_whose_answer_was_lost_are_written_again(queue: TaskQueue, url: str, monkeypatch: Any) -> None:
    write, lost = queue.store.write_history, []

    def loses(rows: list[HistoryRecord]) -> None:
        write(rows)
        if len(lost) < 2:
            lost.append(rows)
            raise StoreUnavailable("no answer", maybe_done=True)

    monkeypatch.setattr(queue.store, "write_history", loses)
    queue.enqueue_many(range(30))
    Worker(queue).run(work, burst=True)
    until(lambda: len(lost) == 2)
    assert in_history(queue) == in_tables(url)


@pytest.mark.one_engine("decided in Python")
def test_without_ends_nothing_is_written(queue: TaskQueue, monkeypatch: Any) -> None:
    written: list[object] = []
    monkeypatch.setattr(queue.store, "write_history", written.append)
    Worker(queue).run(work, burst=True)
    assert queue.fetch(timeout=0) == []
    queue._membership.history()
    assert written == []


# -- clocks ----------------------------------------------------------------------------------------


def count(history: AttemptHistory, number: int = 1, *, ago: int = 0) -> None:
    """Count finishes of a task that was due a second before."""
    now = clock.now() - ago
    due = now - 1_000_000
    new = fresh(1, new_task(due))
    for _ in range(number):
        history.count(new._replace(state="running", started_at=now - 500_000), End("finish", 1, 1, now), DONE)


def new_task(due: int) -> NewTask:
    return NewTask("default", 0, due, 10, due, None, "f", None, "1")


def done(queue: TaskQueue) -> int:
    return sum(row.done for row in queue.store.history_totals())


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
@pytest.mark.parametrize("distance", [HOUR, -HOUR, 8 * HOUR, -8 * HOUR])
def test_a_clock_that_jumps_loses_no_count(queue: TaskQueue, jump: Jump, distance: int) -> None:
    """Back at a minute that it has stored and forgotten, a worker adds to what it has stored."""
    history = AttemptHistory(queue.store)
    for _ in range(3):
        for _ in range(2):
            count(history, 3)
            history()
        jump(distance)
        count(history, 2)
        history()
        jump(-distance)
        count(history, 1)
        jump(5 * MINUTE)
        history()
        jump(-5 * MINUTE)
    assert done(queue) == 3 * (6 + 2 + 1)


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_a_minute_that_others_may_have_folded_is_not_written_again(queue: TaskQueue, jump: Jump) -> None:
    """After an outage of hours it is unknown which part of a row was folded: rather short than counted twice."""
    history = AttemptHistory(queue.store)
    count(history, 3)
    history()
    count(history, 2)  # the database is unavailable from here on
    jump(7 * HOUR)
    while queue.store.fold_history(clock.now(), 100):
        pass
    count(history, 1)
    count(history, 1, ago=7 * HOUR)  # an end that is stored only now
    history()
    assert done(queue) == 3 + 2


def test_a_worker_with_a_wrong_clock_counts_at_the_time_of_the_database(queue: TaskQueue, jump: Jump) -> None:
    if queue.url.startswith("sqlite"):
        pytest.skip("a file has the clock of the machine")
    right = queue.store.outlook(0).now
    jump(-24 * HOUR)
    history = AttemptHistory(queue.store)
    history.note_time(queue.store.outlook(clock.now()).now)
    count(history)
    history()
    [row] = queue.store.history(0)
    assert right - MINUTE < row.at <= queue.store.outlook(0).now


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.one_engine("decided in Python, with verbs that other tests run on every engine")
def test_rare_functions_are_counted_together_if_there_are_very_many(queue: TaskQueue) -> None:
    history = AttemptHistory(queue.store)
    for number in range(500):
        now = clock.now()
        new = new_task(now)._replace(function=f"f{number}", queue=f"q{number % 100}")
        history.count(fresh(1, new)._replace(state="running", started_at=now), End("finish", 1, 1, now), DONE)
    history()
    rows = queue.store.history(0)
    assert len(rows) <= 2 * 200
    assert len({(row.queue, row.function) for row in rows if row.at == rows[0].at}) <= 200
    assert done(queue) == 500
    while queue.store.fold_history(clock.now() + 8 * HOUR, 100):
        pass
    assert len(queue.store.history(0)) <= 2 * 200
    assert done(queue) == 500


# -- reading ---------------------------------------------------------------------------------------


def store(queue: TaskQueue, *rows: HistoryRecord) -> None:
    queue.store.write_history(rows)


def row(at: int, **figures: Any) -> HistoryRecord:
    values = {"period": 60, "worker": 1, "queue": "default", "function": "f", "run_times": '{"0": 1}'}
    return HistoryRecord(**{**values, "at": at, **figures})


def test_points_are_aligned_and_added_up(queue: TaskQueue) -> None:
    now = queue.store.outlook(clock.now()).now
    start = now - now % (10 * MINUTE) - 20 * MINUTE
    store(
        queue,
        row(start, done=1, seconds=2_000_000, cpu=500_000, memory=10),
        row(start + MINUTE, done=2, failed=1, worker=2, seconds=1_000_000, memory=30),
        row(start + 2 * MINUTE, function="g", lost=1, released=1, memory=20),
        row(start + 10 * MINUTE, done=4),
        row(start + 10 * MINUTE, queue="other", done=100),
        row(start - MINUTE, done=1000),
    )
    points = queue.history(since="20m", step="10m")
    assert [point.at for point in points] == [
        datetime.fromtimestamp((start + n * 10 * MINUTE) / 1e6, UTC) for n in range(3)
    ]
    first, second, third = points
    assert (first.done, first.failed, first.lost, first.released) == (3, 1, 1, 1)
    assert (first.seconds, first.cpu_seconds, first.peak_memory) == (3.0, 0.5, 30)
    assert (first.queue, first.function) == ("default", None)
    assert second.done == 4
    assert third[3:12] == (0, 0, 0, 0, 0, 0, 0.0, 0.0, None)
    assert third.run_p95 is third.wait_p95 is None
    of_g = queue.history("g", since=timedelta(minutes=20), step=600)
    assert [(point.function, point.lost, point.done) for point in of_g] == [("g", 1, 0), ("g", 0, 0), ("g", 0, 0)]
    assert {point.at.timestamp() % 3600 for point in queue.history(since="7d", step="1h")} == {0.0}


def test_percentiles_are_interpolated_in_their_bucket(queue: TaskQueue) -> None:
    now = queue.store.outlook(clock.now()).now
    store(queue, row(now - now % MINUTE, run_times='{"3": 90, "5": 10}', wait_times='{"-10": 4}', done=100))
    point = queue.history(since="1m", step="1m")[-1]
    assert point.run_p50 is not None
    assert 4 < point.run_p50 <= 8
    assert point.run_p95 is not None
    assert 16 < point.run_p95 <= 32
    assert point.wait_p95 is not None
    assert 0 < point.wait_p95 <= 2**-10


@pytest.mark.one_engine("checked in Python")
@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"since": "soon"}, "since.*soon"),
        ({"step": 0}, "step"),
        ({"step": -1}, "step"),
        ({"step": 0.5}, "step"),
        ({"since": "400d", "step": "1m"}, "10,000"),
        ({"since": float("inf")}, "since"),
        ({"step": None}, "step"),
    ],
)
def test_invalid_times_are_refused(queue: TaskQueue, options: dict[str, Any], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        queue.history(**options)


# -- samples and turns -----------------------------------------------------------------------------


def test_a_sample_has_what_is_in_each_queue(queue: TaskQueue, url: str) -> None:
    lane = queue.lane("other")
    queue.enqueue_many(range(5))
    blocked = queue.enqueue(1, after=queue.enqueue(0))
    lane.enqueue(1, start_in=3600)
    running = queue.fetch(2)
    for task in running:
        task.start()
    [reserved] = queue.fetch(1)
    [failing] = queue.fetch(1)
    failing.start()
    failing.fail("x")
    now = queue.store.outlook(clock.now()).now
    take_samples(queue.store, now)
    found = {sample.queue: sample for sample in queue.store.samples(0)}
    mine = found["default"]
    assert (mine.pending, mine.failed, mine.reserved, mine.running, mine.blocked) == (3, 1, 1, 2, 1)
    assert mine.oldest_due is not None
    assert found["other"][3:9] == (1, 0, 0, 0, 0, None)
    for name, sample in found.items():
        stats = queue.lane(name).stats()
        assert (sample.pending, sample.failed, sample.running) == (stats.pending, stats.failed, stats.running)
    take_samples(queue.store, now)  # a turn that was taken twice
    assert len(queue.store.samples(0)) == 2
    point = queue.history(since="5m", step="1m")[-1]
    if point.pending is None:  # the minute is over
        point = queue.history(since="5m", step="1m")[-2]
    assert (point.pending, point.running, point.workers) == (3, 2, 0)
    assert (blocked.state, reserved.state) == ("pending", "reserved")


def test_a_live_worker_is_part_of_a_sample(queue: TaskQueue) -> None:
    worker = Worker(queue, queues=["mail", "other*"])
    running = Background(lambda: worker.run(lambda payload: payload))
    samples = until(lambda: [sample for sample in queue.store.samples(0) if sample.workers])
    worker.stop()
    running.join()
    assert {(sample.queue, sample.workers) for sample in samples} == {("mail", 1)}


def test_one_program_gets_a_turn(queue: TaskQueue) -> None:
    now = queue.store.outlook(clock.now()).now
    take = queue.store.take_turn
    assert [take(TURN, now, MINUTE) for _ in range(3)] == [True, False, False]
    turn = queue.store.outlook(clock.now()).next_turn
    assert turn == now - now % MINUTE + MINUTE
    assert not take(TURN, turn - 1, MINUTE)
    assert take(TURN, turn, MINUTE)
    assert not take(TURN, turn, MINUTE)


@pytest.mark.parametrize("distance", [HOUR, -HOUR])
def test_a_turn_that_a_wrong_clock_has_set_is_corrected(queue: TaskQueue, distance: int) -> None:
    """With a file, the clock of any program decides, so one that is an hour ahead must not stop the others."""
    now = queue.store.outlook(clock.now()).now
    assert queue.store.take_turn(TURN, now + distance, MINUTE)
    upkeep = Upkeep(queue.store)
    upkeep.see(queue.store.outlook(clock.now()))
    queue.enqueue()
    upkeep()
    assert [sample.pending for sample in queue.store.samples(0)] == [1]
    turn = queue.store.outlook(clock.now()).next_turn
    assert turn is not None
    assert now < turn <= now + 2 * MINUTE
    upkeep.see(queue.store.outlook(clock.now()))
    upkeep()
    assert len(queue.store.samples(0)) == 1


def test_threads_that_want_the_same_turn(queue: TaskQueue, other: TaskQueue) -> None:
    now = queue.store.outlook(clock.now()).now
    for number in range(10):
        name = f"race {number}"
        taking = [Background(partial(each.store.take_turn, name, now, MINUTE)) for each in (queue, other)]
        assert sorted(each.join() for each in taking) == [False, True]
