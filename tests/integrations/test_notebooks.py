"""Queues and tasks in a notebook: a real kernel runs a cell and returns their HTML."""

from __future__ import annotations

import html

import pytest
from servers.requirements import library

from dbtaskqueue import TaskQueue, Worker, current_task

HOSTILE = "<script>alert('x')</script>\x1b[31m"
pytestmark = pytest.mark.one_engine("what is shown does not depend on the engine")


def test_a_task_shows_its_state_progress_and_error(queue: TaskQueue) -> None:
    def callback(payload: object) -> None:
        current_task().progress(1, 4, HOSTILE)
        raise ValueError(HOSTILE)

    task = queue.enqueue(max_attempts=1)
    Worker(queue).run(callback, burst=True)
    shown = task.refresh()._repr_html_()
    assert f"Task {task.id} of queue default" in shown
    assert "abandoned" in shown
    assert 'value="0.250"></progress> 1 of 4 ' in shown
    assert html.escape("<script>") in shown
    assert "<script" not in shown
    assert "\x1b" not in shown


def test_progress_without_a_total_has_no_bar(queue: TaskQueue) -> None:
    task = queue.enqueue()
    Worker(queue).run(lambda payload: current_task().progress(30, message="pages"), burst=True)
    shown = task.refresh()._repr_html_()
    assert ">30 pages</td>" in shown
    assert "<progress" not in shown


def test_a_queue_shows_its_counts_and_no_password(queue: TaskQueue) -> None:
    queue.enqueue()
    assert ">pending</th><td" in queue._repr_html_()
    closed = TaskQueue("postgresql://someone:secret@localhost/tasks", open=False)._repr_html_()
    assert "secret" not in closed
    assert ">open</th>" in closed


def test_a_notebook_shows_both(queue: TaskQueue) -> None:
    library("nbclient", "ipykernel", "nbformat")
    from nbclient import NotebookClient
    from nbformat import v4

    cells = [f"from dbtaskqueue import TaskQueue\nqueue = TaskQueue({queue.url!r})\nqueue.enqueue()", "queue"]
    notebook = v4.new_notebook(cells=[v4.new_code_cell(text) for text in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = [cell.outputs[0].data["text/html"] for cell in notebook.cells]
    assert "Task 1 of queue default" in shown[0]
    assert "Queue default of" in shown[1]
