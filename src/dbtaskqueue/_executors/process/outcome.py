"""How a task in a child has ended, according to the child's reply or to the end of the child itself."""

from __future__ import annotations

import signal
from typing import Any

from ..._formats.output import Output
from ...errors import (
    AbandonTask,
    ChildFailed,
    LeaseLost,
    ReleaseTask,
    RetryTask,
    StoreUnavailable,
    TaskCancelled,
    TaskQueueError,
)
from ...outcomes import Backoff
from ..task_run import TaskRun
from .channel import Message, record_from
from .child_handle import ChildHandle

_CHOICES = {"RetryTask": RetryTask, "ReleaseTask": ReleaseTask}
_KNOWN: dict[str, type[Exception]] = {
    "AbandonTask": AbandonTask,
    "TaskCancelled": TaskCancelled,
    "LeaseLost": LeaseLost,
    "StoreUnavailable": StoreUnavailable,
}


def read_reply(run: TaskRun, reply: Message) -> None:
    """Note in ``run`` how it ended, according to the child. A reply that cannot be read fails the task."""
    try:
        if reply.get("has_ended") is True:
            run.note_ended()
        run.spend(float(reply.get("cpu") or 0.0), int(reply.get("memory") or 0))
        if (output := reply.get("output")) is not None:
            run.write_output(output.encode("latin-1"))
        if "start" in reply:
            run.started_at, run.ended_at = int(reply["start"]), int(reply["end"])
        if (error := reply.get("error")) is not None:
            run.error = unpacked(error)
            if (backoff := reply.get("backoff")) is not None:
                run.backoff = record_from(Backoff, backoff)
        elif (result := reply.get("result")) is not None:
            run.result = str(result)
    except Exception as error:  # task code may write into the socket
        run.error = TaskQueueError(f"the child's reply cannot be read: {type(error).__name__}")


def note_progress(run: TaskRun, message: Message) -> None:
    """Note the progress that a message of the child reports, if any."""
    if (progress := message.get("progress")) is not None and run.tracker is not None:
        run.tracker.update(progress["done"], progress.get("total"), progress.get("message"))


def unpacked(error: dict[str, Any]) -> BaseException:
    """Return the exception of a child's message: one of this package as itself, any other as ChildFailed."""
    name, message, text = str(error["name"]), str(error["message"]), str(error["text"])
    full_name = str(error.get("type", name))
    kind = error.get("kind")
    found: BaseException
    if kind in _CHOICES:
        found = _CHOICES[kind](error["delay"])
    elif kind in _KNOWN:
        found = _KNOWN[kind](message)
    else:
        return ChildFailed(f"{name}: {message}" if message else name, name, text, full_name)
    found.text_in_child = text  # type: ignore[attr-defined]
    found.type_in_child = full_name  # type: ignore[attr-defined]
    return found


def how_it_ended(code: int) -> str:
    """Return an exit code in words; a negative one is the number of a signal."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"


def child_ended(child: ChildHandle, run: TaskRun, code: int) -> ChildFailed | None:
    """Return the failure of a task whose child has ended with this code; None for a command that has succeeded."""
    if run.record.command:
        if code == 0:
            run.result = '{"exit_code": 0}'
            return None
        return process_failed(f"the command {how_it_ended(code)}", run.output)
    if child.fault is None and child.is_dying and not child.is_stopping:
        child.fault = "the child closed its connection to the worker"
    return process_failed(child.fault or f"the child process {how_it_ended(code)}", run.output)


def process_failed(what: str, output: Output | None) -> ChildFailed:
    """Return the failure of an attempt whose process has ended: ``what`` happened, and the end of its output."""
    last = "" if output is None else output.last_lines()
    return ChildFailed(what, "ChildFailed", f"{what}\n\nthe end of its output:\n{last}" if last.strip() else what)
