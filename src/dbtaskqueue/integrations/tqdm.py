"""tqdm: a progress bar that also reports the progress of the running task.

    from dbtaskqueue.integrations.tqdm import tqdm

It is ``tqdm.auto.tqdm`` with all its options. In a task whose output is not a terminal, it draws nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from . import missing

try:
    import tqdm as _tqdm
    import tqdm.auto as _auto
except ImportError as error:
    raise missing("tqdm", error) from None

from ..current import RunningTask, current_task
from ..errors import TaskCancelled


class _Nowhere:
    """A file that keeps nothing, in place of a terminal."""

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


class tqdm(_auto.tqdm):  # type: ignore[misc]  # noqa: N801
    """A progress bar of tqdm. Inside of a task, the outermost one also reports the task's progress.

    ``n``, ``total`` and the description become ``done``, ``total`` and ``message``. An update raises TaskCancelled if
    cancellation was requested.
    """

    _cancelled: TaskCancelled | None = None
    _is_closing = False
    _task: RunningTask | None = None
    _is_outermost = False

    def __init__(self, *args: Any, **options: Any) -> None:
        self._task = task = _current_task()
        if task is not None:
            with self.get_lock():  # tqdm's own positions count the bars of all tasks of this process
                others = [each for each in self._instances if each is not self]
            self._is_outermost = all(getattr(each, "_task", None) is not task for each in others)
            if options.get("file") is None and not sys.stderr.isatty():
                options["file"] = _Nowhere()
        super().__init__(*args, **options)

    def display(self, *args: Any, **options: Any) -> Any:
        """Draw the bar, and report the progress. tqdm calls this at most every ``mininterval`` seconds."""
        self._report()
        return super().display(*args, **options)

    def update(self, n: float | None = 1) -> bool | None:
        """Add to the bar. Raises TaskCancelled if cancellation was requested."""
        shown: bool | None = super().update(n)
        if self._cancelled is not None and not self._is_closing:
            raise self._cancelled
        return shown

    def close(self) -> None:
        """Report the last progress, and close the bar."""
        if not getattr(self, "disable", True):
            self._report()
            self._is_closing = True
        super().close()

    def _report(self) -> None:
        """Report the progress. This raises nothing, since tqdm holds a lock and would not release it."""
        if self._task is not None and self._is_outermost and not self._is_closing:
            try:
                self._task.progress(self.n, self.total, self.desc.removesuffix(": ") or None)
            except TaskCancelled as error:
                self._cancelled = error


def trange(*args: int, **options: Any) -> Iterator[int]:
    """Return ``tqdm(range(*args), **options)``."""
    bar: Iterator[int] = tqdm(range(*args), **options)
    return bar


def patch() -> None:
    """Replace ``tqdm`` and ``trange`` in the package tqdm, for libraries that import them from there.

    Call it before such a library is imported, where each process that runs tasks does so: at the top of the module of
    the task functions, for example.
    """
    for module in (_tqdm, _auto):
        module.tqdm, module.trange = tqdm, trange


def _current_task() -> RunningTask | None:
    try:
        return current_task()
    except RuntimeError:  # outside of a task
        return None
