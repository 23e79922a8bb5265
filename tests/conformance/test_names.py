"""Names of queues: which are valid, and that they reach the database as values, never as SQL."""

from __future__ import annotations

import pytest

from dbtaskqueue import TaskQueue, Worker

pytestmark = pytest.mark.one_engine("refused before a query is sent")

GOOD = ["a", "http.fetch", "A-b_c.d:e", "0", "x" * 128, "--", "DROP", "select", "..", ":memory:"]
BAD = ["", "x" * 129, "two words", "ä", "ａ", "a/b", "a'b", 'a"b', "a;b", "a%b", "a\n", "\na", "a\x00b", "٣", "\ud800"]


@pytest.mark.every_engine("the collation of a column decides")
@pytest.mark.parametrize("name", GOOD)
def test_a_good_name_works(url: str, name: str) -> None:
    with TaskQueue(url, queue=name) as queue:
        task = queue.enqueue(name, key=name)
        assert (task.queue, task.key) == (name, name)
        assert queue.stats().pending == 1
        seen: list[str] = []
        Worker(url, queue=name).run(seen.append, burst=True)
        assert seen == [name]


@pytest.mark.parametrize("name", [*BAD, 7, b"bytes"], ids=ascii)
def test_a_bad_name_is_refused(url: str, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        TaskQueue(url, queue=name)
    with pytest.raises(ValueError, match="name"):
        Worker(url, queues=["good", name])
    with pytest.raises(ValueError, match="name"):
        Worker(url, queue=name)


@pytest.mark.every_engine("the collation of a column decides")
@pytest.mark.parametrize(
    ("one", "other"), [("ä", "a"), ("key", "Key"), ("key", "key "), ("'; --", "';"), ("🧊", "x" * 255)]
)
def test_a_key_is_any_text_and_compared_exactly(queue: TaskQueue, one: str, other: str) -> None:
    first, second = queue.enqueue(1, key=one), queue.enqueue(2, key=other)
    assert first.id != second.id
    assert queue.enqueue(3, key=one).id == first.id
    assert queue.get(second.id).key == other


@pytest.mark.every_engine("the collation of a column decides")
def test_upper_and_lower_case_differ(url: str) -> None:
    with TaskQueue(url, queue="mixed") as lower, TaskQueue(url, queue="MIXED") as upper:
        lower.enqueue("lower")
        assert upper.fetch(timeout=0) == []
        upper.pause()
        assert lower.fetch(timeout=10)[0].payload == "lower"
        assert lower.stats().paused is False
        assert upper.purge() == 0
