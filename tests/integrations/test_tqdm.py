"""``integrations.tqdm``: the bar of a task is its progress, in every executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from servers.requirements import library

library("tqdm")

from integrations import tqdm_tasks  # noqa: E402

from dbtaskqueue import TaskQueue, Worker  # noqa: E402
from dbtaskqueue.integrations.tqdm import tqdm  # noqa: E402

FUNCTIONS = tqdm_tasks.queue.functions
pytestmark = pytest.mark.one_engine("progress is stored by verbs that other tests run on every engine")


def ended(queue: TaskQueue, executor: Any, function: Any, *args: object) -> Any:
    """Run a call in a worker with this executor; return its task."""
    call = function.bind(*args)
    task = queue.enqueue(call)
    queue.functions = FUNCTIONS
    Worker(queue, executor=executor).run(burst=True)
    return task.refresh()


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_the_outermost_bar_is_the_progress_of_the_task(queue: TaskQueue, executor: str) -> None:
    task = ended(queue, executor, tqdm_tasks.crawl, 3)
    assert task.result == [3, 3, "pages"]
    assert task.progress[:3] == (3, 3, "pages")


def test_tasks_at_the_same_time_report_their_own_outermost_bars(queue: TaskQueue) -> None:
    queue.functions = FUNCTIONS
    tasks = queue.enqueue_many([tqdm_tasks.crawl_beside_another.bind(pages) for pages in (3, 4)])
    Worker(queue, concurrency=2).run(burst=True)
    assert [task.get_result(10)[:2] for task in tasks] == [[3, 3], [4, 4]]


def test_a_child_process_draws_nothing(queue: TaskQueue) -> None:
    task = ended(queue, "process", tqdm_tasks.crawl, 3)
    assert task.attempts()[0].output in (None, "")


def test_a_bar_with_a_file_is_drawn_there(queue: TaskQueue, tmp_path: Path) -> None:
    task = ended(queue, "process", tqdm_tasks.crawl_into, str(tmp_path / "bar"))
    assert "2/2" in Path(tmp_path, "bar").read_text()
    assert task.progress[:2] == (2, 2)


def test_a_patched_library_reports_progress(queue: TaskQueue) -> None:
    assert ended(queue, "process", tqdm_tasks.crawl_with_a_library, 4).result == [2, 4, "theirs"]


def test_an_update_ends_a_cancelled_task(queue: TaskQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tqdm_tasks, "queue", queue)
    assert ended(queue, "thread", tqdm_tasks.crawl_until_cancelled).state == "cancelled"


def test_outside_of_a_task_it_is_tqdm(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tqdm([1, 2], desc="outside")) == [1, 2]
    assert "outside: 100%" in capsys.readouterr().err
