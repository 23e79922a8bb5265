"""What became of a task in a child, as the worker understands it: an exception again, or the child's own end."""

from __future__ import annotations

import signal
from typing import Any

from ..._formats.output import Output
from ...errors import AbandonTask, ChildFailed, LeaseLost, ReleaseTask, RetryTask, StoreUnavailable, TaskCancelled

_CHOICES = {"RetryTask": RetryTask, "ReleaseTask": ReleaseTask}
_KNOWN: dict[str, type[Exception]] = {
    "AbandonTask": AbandonTask,
    "TaskCancelled": TaskCancelled,
    "LeaseLost": LeaseLost,
    "StoreUnavailable": StoreUnavailable,
}


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
    """An exit code, or the number of a signal below 0, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed by {name}"


def death(what: str, output: Output | None) -> ChildFailed:
    """The failure of an attempt whose process is gone: what happened, and the end of its output."""
    last = "" if output is None else output.last_lines()
    return ChildFailed(what, "ChildFailed", f"{what}\n\nthe end of its output:\n{last}" if last.strip() else what)
