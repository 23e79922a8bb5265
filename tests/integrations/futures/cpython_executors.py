"""QueueExecutor as CPython's own tests make executors: with the number of workers as the only argument."""

from __future__ import annotations

import concurrent.futures
import tempfile
from typing import Any

from dbtaskqueue.integrations.futures import QueueExecutor


def url() -> str:
    """Return the URL of a new file."""
    return f"sqlite:///{tempfile.mkdtemp(prefix='dbtaskqueue-cpython-')}/work.sqlite"


class ThreadQueueExecutor(QueueExecutor):
    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        super().__init__(url(), max_workers=max_workers, executor="thread", **options)


class ProcessQueueExecutor(QueueExecutor):
    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        super().__init__(url(), max_workers=max_workers, executor="process", **options)


EXECUTORS = {"thread": ThreadQueueExecutor, "process": ProcessQueueExecutor}
for executor in EXECUTORS.values():  # scripts of the tests import them from there
    setattr(concurrent.futures, executor.__name__, executor)
