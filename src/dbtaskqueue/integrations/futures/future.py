"""The future of a task, and the exceptions of tasks that ran in other processes."""

from __future__ import annotations

import ast
import builtins
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from ... import errors
from ...errors import ChildFailed, InvalidTransition, RemoteTraceback, StoreUnavailable, TaskFailed, TaskNotFound
from ...states import CANCELLED, DONE, RUNNING
from ...task import Task
from .tagged import decode

T = TypeVar("T")


class TaskFuture(Future[T]):
    """The future of a task. ``task`` is the task in the database."""

    def __init__(self, task: Task[Any], on_cancel: Callable[[Task[Any]], object]) -> None:
        super().__init__()
        self.task = task
        self._on_cancel = on_cancel
        self._claim = threading.Lock()
        self._is_claimed = False

    def cancel(self) -> bool:
        """Cancel the task unless it has started. Return whether it is cancelled."""
        if self.done():
            return self.cancelled()
        try:
            is_cancelled = self.task.cancel(running=False)
        except (InvalidTransition, TaskNotFound):
            return False
        if is_cancelled:
            self.settle(self._cancel)
            self._on_cancel(self.task)
        return is_cancelled

    def running(self) -> bool:
        """Return whether the task runs now, which is read from the database."""
        with contextlib.suppress(TaskNotFound, StoreUnavailable):
            return not self.done() and self.task.refresh().state == RUNNING
        return False

    def settle(self, act: Callable[[], object]) -> None:
        """For the executor: set the result or the exception by ``act``, unless that was done."""
        with self._claim:
            is_claimed, self._is_claimed = self._is_claimed, True
        if not is_claimed:
            act()

    def end(self, task: Task[Any], error: BaseException | None = None) -> None:
        """For the executor: the task has ended. ``error``: the exception, if this process knows it."""
        if task.state == DONE:
            try:
                result = decode(task.result)
            except Exception as broken:
                self.settle(partial(self.set_exception, broken))
            else:
                self.settle(partial(self.set_result, result))
        elif task.state == CANCELLED:
            self.settle(self._cancel)
        else:
            self.settle(partial(self.set_exception, _exception(task, error)))

    def _cancel(self) -> None:
        super().cancel()
        self.set_running_or_notify_cancel()


def _exception(task: Task[Any], error: BaseException | None) -> BaseException:
    """Return the exception that the code raised; from another process, one of the same class where that is possible."""
    if error is not None and not isinstance(error, ChildFailed):
        return error
    text, name = task.error or "", task.error_type
    if isinstance(error, ChildFailed):
        text, name = error.text_in_child, error.type_in_child
        if name is None:
            return error
    found = _rebuilt(name or "", text) or TaskFailed(f"task {task.id} was abandoned: {_last_line(text)}", text)
    found.__cause__ = RemoteTraceback(text)
    return found


def _rebuilt(name: str, text: str) -> BaseException | None:
    """Return an exception of the builtins or of this package. Others would have to be imported."""
    module, _, short = name.rpartition(".")
    kind = vars({"builtins": builtins, errors.__name__: errors}.get(module, object)).get(short)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        return None
    shown = kind.__name__ if module == "builtins" else name
    _, found, message = f"\n{text.strip()}".rpartition(f"\n{shown}")
    message = message.removeprefix(": ")
    if kind is KeyError:  # shows the repr of its key
        with contextlib.suppress(ValueError, SyntaxError):
            return KeyError(ast.literal_eval(message))
    try:
        return kind(message) if found and message else kind()
    except Exception:  # its class needs other arguments
        return None


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]
