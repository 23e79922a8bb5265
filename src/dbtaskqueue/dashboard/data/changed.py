"""What a program gets after an action: the task as it is now."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from ...monitoring.tasks import attributes
from ...queue import TaskQueue


def task_value(queue: TaskQueue, id: int, hidden: Container[str]) -> dict[str, Any]:
    """Return a task as ``show --json`` has it, but without its attempts. ``hidden``: what is never shown."""
    task = queue.get(id)
    found = attributes(task, task.blocked)
    return {name: None if name in hidden else value for name, value in found.items()}
