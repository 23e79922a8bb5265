"""Notes of a running attempt, above all its output, and the CPU time and memory that it used."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from dbtaskqueue import RetryPolicy, TaskQueue
from dbtaskqueue._store.contract import Claim, End, Note, TaskRecord
from dbtaskqueue._store.verbs import listing
from dbtaskqueue._system import clock
from dbtaskqueue.task import attempts_of

OUTPUT = "ü😀\x1b[31m\n" + "x" * 2**16 + "\n… cut\n"


def start(queue: TaskQueue, count: int = 1, *, batched: bool = False) -> list[TaskRecord]:
    claim = Claim([queue.name], count, clock.now(), start=not batched, batched=batched)
    return queue.store.exchange(queue._membership.join(), claim=claim).claimed


def exchange(queue: TaskQueue, *, notes: Sequence[Note] = (), ends: Sequence[End] = ()) -> list[bool]:
    answers = queue.store.exchange(queue._membership.join(), notes=notes, ends=ends).ended
    return [verdict.stored for verdict in answers]


def end(verb: str, record: TaskRecord, cpu: int | None = None, memory: int | None = None) -> End:
    error = "broken" if verb == "fail" else None
    return End(verb, record.id, record.token, clock.now(), error=error, cpu=cpu, memory=memory)


@pytest.fixture
def record(queue: TaskQueue) -> TaskRecord:
    queue.enqueue("x", retry=RetryPolicy(delay=0))
    return start(queue)[0]


def test_the_last_note_under_a_name_is_kept(queue: TaskQueue, record: TaskRecord) -> None:
    def note(name: str, value: str) -> Note:
        return Note(record.id, record.token, name, value)

    exchange(queue, notes=[note("output", "a"), note("progress", "[1, 2, null, null]"), note("usage", '{"memory": 1}')])
    exchange(queue, notes=[note("output", OUTPUT), note("usage", '{"memory": 2}')])
    exchange(queue, notes=[note("output", OUTPUT)])
    [attempt] = queue.get(record.id).attempts()
    assert attempt.output == OUTPUT
    seen = queue.store.get(record.id)
    assert seen is not None
    assert (seen.progress, seen.usage) == ("[1, 2, null, null]", '{"memory": 2}')
    exchange(queue, ends=[end("finish", record)])
    seen = queue.store.get(record.id)
    assert seen is not None
    assert (seen.progress, seen.usage) == ("[1, 2, null, null]", None), "usage is shown for running attempts only"


@pytest.mark.pooled("prepared statements")
def test_notes_of_many_tasks_are_stored_in_one_exchange(queue: TaskQueue) -> None:
    queue.enqueue_many(range(20))
    records = start(queue, 20)
    exchange(queue, notes=[Note(each.id, each.token, "output", f"of {each.id}") for each in records])
    assert [queue.get(each.id).attempts()[0].output for each in records] == [f"of {each.id}" for each in records]


@pytest.mark.engine("sqlite", "postgresql", "mariadb")
def test_attempts_are_read_with_their_newest_outputs_only(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 20,000 outputs of 4 KB took 76 MiB."""
    id = queue.enqueue("x", retry=RetryPolicy(delay=0, max_attempts=None)).id
    monkeypatch.setattr(listing, "OUTPUTS", 5)
    count = 20
    for number in range(1, count + 1):
        [record] = start(queue)
        notes = [Note(id, record.token, "output", f"of {number}")] if number % 4 else []
        exchange(queue, notes=notes, ends=[end("fail", record)] if number < count else [])
    attempts = queue.get(id).attempts()
    assert [attempt.number for attempt in attempts] == list(range(1, count + 1))
    kept = [f"of {number}" if number % 4 else None for number in range(1, count + 1)]
    old = next(place for place, attempt in enumerate(attempts) if attempt.output is not None)
    assert [attempt.output for attempt in attempts[old:]] == kept[old:]
    assert len([output for output in kept[old:] if output is not None]) == 5
    assert [queue.store.output(id, attempt.token) for attempt in attempts] == kept
    since = attempts_of(queue.store, id, attempts[-3].token)
    assert [attempt.output for attempt in since] == kept[-3:]


def test_a_note_with_an_old_token_is_refused(queue: TaskQueue, record: TaskRecord) -> None:
    exchange(queue, ends=[end("fail", record)])
    [second] = start(queue)
    assert second.id == record.id
    old = Note(record.id, record.token, "output", "late")
    exchange(queue, notes=[old, Note(record.id, second.token + 1, "output", "early"), Note(999, 1, "output", "none")])
    assert [attempt.output for attempt in queue.get(record.id).attempts()] == [None, None]
    exchange(queue, notes=[Note(second.id, second.token, "output", "mine")], ends=[end("finish", second)])
    exchange(queue, notes=[Note(second.id, second.token, "output", "after the end")])
    assert [attempt.output for attempt in queue.get(record.id).attempts()] == [None, "mine"]


def test_each_attempt_has_its_output_and_usage(queue: TaskQueue, record: TaskRecord) -> None:
    def end_with_output(record: TaskRecord, verb: str, number: int) -> None:
        note = Note(record.id, record.token, "output", f"attempt {number}")
        assert exchange(queue, notes=[note], ends=[end(verb, record, number * 500_000, 2**40 + number)]) == [True]

    end_with_output(record, "fail", 1)
    end_with_output(start(queue)[0], "release", 2)
    end_with_output(start(queue)[0], "finish", 3)
    queue.retry(record.id)
    [fourth] = start(queue)
    expected = [
        ("failed", "attempt 1", 0.5, 2**40 + 1),
        ("released", "attempt 2", 1.0, 2**40 + 2),
        ("done", "attempt 3", 1.5, 2**40 + 3),
    ]
    attempts = queue.get(record.id).attempts()
    assert [(a.outcome, a.output, a.cpu_seconds, a.peak_memory) for a in attempts] == [
        *expected,
        (None, None, None, None),
    ]
    exchange(queue, ends=[end("finish", fourth)])
    last = queue.get(record.id).attempts()[-1]
    assert (last.outcome, last.cpu_seconds, last.peak_memory) == ("done", None, None), (
        "the third attempt is not counted"
    )
    assert queue.prune(0) == 1
    assert queue.store._connections.query("export_note", {"after": 0, "last": 999}) == []  # type: ignore[attr-defined]


@pytest.mark.pooled("prepared statements")
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("measured", [False, True])
def test_outcomes_of_a_batch_store_their_usage(queue: TaskQueue, batched: bool, measured: bool) -> None:
    queue.enqueue_many(range(7))
    records = start(queue, 7, batched=batched)
    numbers = [(each.id * 10, each.id * 100) if measured and each.id % 2 else (None, None) for each in records]
    ends = [
        end("finish", each, cpu, memory)._replace(started_at=clock.now() if batched else None)
        for each, (cpu, memory) in zip(records, numbers, strict=True)
    ]
    claim = Claim([queue.name], 1, clock.now())  # PostgreSQL ends and claims in one statement
    answers = queue.store.exchange(queue._membership.join(), ends=ends, claim=claim).ended
    assert all(verdict.stored for verdict in answers)
    for each, (cpu, memory) in zip(records, numbers, strict=True):
        [attempt] = queue.store.attempts(each.id)
        assert (attempt.outcome, attempt.cpu, attempt.memory) == ("done", cpu, memory)


def test_a_lost_attempt_keeps_its_output(queue: TaskQueue, record: TaskRecord) -> None:
    exchange(queue, notes=[Note(record.id, record.token, "output", "its last words")])
    assert record.worker is not None
    [beat] = [worker.beat for worker in queue.store.workers() if worker.id == record.worker]
    queue.store.rescue(record.worker, beat, "lost", clock.now(), lambda *_: clock.now())
    [attempt] = queue.get(record.id).attempts()
    assert (attempt.outcome, attempt.error, attempt.output) == ("lost", "lost", "its last words")


def test_attempts_from_a_token_on(queue: TaskQueue, record: TaskRecord) -> None:
    """Following a task must not read the output of all its attempts each second."""
    tokens = []
    for number in range(3):
        tokens.append(record.token)
        exchange(queue, notes=[Note(record.id, record.token, "output", f"{number}")])
        exchange(queue, ends=[end("finish" if number == 2 else "fail", record)])
        if number < 2:
            [record] = start(queue)
    for first in range(3):
        found = queue.store.attempts(record.id, tokens[first])
        assert [(each.token, each.output) for each in found] == [(tokens[n], f"{n}") for n in range(first, 3)]
    assert queue.store.attempts(record.id, tokens[2] + 1) == []
