"""A worker, its fork server and its children may have different versions after an upgrade of the installed package.

Then messages have fields that the other side does not know, or fields in another order. There is no second version
to install, so ``newer_version`` adds and reorders them.
"""

from __future__ import annotations

from typing import Any

import pytest
from processes.children import newer_version

from dbtaskqueue import RetryPolicy, TaskQueue, Worker
from dbtaskqueue._executors.process.channel import Channel, record_from
from dbtaskqueue._executors.process.children import Children
from dbtaskqueue._store.contract import TaskRecord

pytestmark = pytest.mark.engine("sqlite")

ONCE = RetryPolicy(max_attempts=1)


def test_messages_of_a_newer_version_are_understood(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Channel, "send", newer_version.send)
    heard: list[dict[str, Any]] = []
    hear = Children._on_message
    monkeypatch.setattr(Children, "_on_message", lambda self, child, m: (heard.append(m), hear(self, child, m))[1])
    tasks = [
        queue.enqueue({"do": "return", "value": 7}, retry=ONCE),
        queue.enqueue({"do": "raise", "text": "no good"}, retry=ONCE),
        queue.enqueue({"do": "progress", "count": 3}, retry=ONCE),
        queue.enqueue({"do": "choose", "name": "abandon"}, retry=ONCE),
        queue.enqueue({"do": "print", "text": "hello"}, retry=ONCE),
    ]
    command = queue.enqueue_command(["sh", "-c", "echo $COLOUR"], env={"COLOUR": "blue"}, retry=ONCE)
    Worker(queue, executor="process", allow_commands=True).run(newer_version.act, burst=True)
    assert heard
    assert all("of_a_newer_version" in message for message in heard)
    states = [str(task.refresh().state) for task in [*tasks, command]]
    assert states == ["done", "abandoned", "done", "abandoned", "done", "done"]
    assert tasks[0].result == 7
    assert "ValueError: no good" in (tasks[1].error or "")
    assert tasks[2].progress is not None
    assert tasks[2].progress[:3] == (3, 3, "step 3")
    assert tasks[4].attempts()[0].output == "hello\nhello on stderr\nhello of a child of its own\n"
    assert command.attempts()[0].output == "blue\n"


def test_a_record_without_a_name_that_has_a_default(queue: TaskQueue) -> None:
    record = queue.store.get(queue.enqueue().id)
    assert record is not None
    older = {name: value for name, value in record._asdict().items() if name not in TaskRecord._field_defaults}
    assert record_from(TaskRecord, older) == record
    with pytest.raises(TypeError, match="token"):
        record_from(TaskRecord, {name: value for name, value in older.items() if name != "token"})
