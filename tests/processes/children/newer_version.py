"""Make a process send messages like a newer version of this package, with names that other versions do not know.

If a fork server imports this module, it applies to that server and its children.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import child_tasks

from dbtaskqueue._executors.process.channel import Channel

_NESTED = ("record", "origin", "command", "progress", "error")
_send = Channel.send


def renewed(message: dict[str, Any]) -> dict[str, Any]:
    """Return the message with its fields in reverse order, after a field that no version knows."""
    found: dict[str, Any] = {"of_a_newer_version": {"x": [1]}}
    for name, value in reversed(message.items()):
        if name in _NESTED and isinstance(value, dict):
            found[name] = renewed(value)
        elif name == "tasks":
            found[name] = [renewed(each) for each in value]
        else:
            found[name] = value
    return found


def send(self: Channel, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Replace ``Channel.send``."""
    _send(self, renewed(message), fds)


def act(payload: Any) -> Any:
    """Call the callback of ``child_tasks``."""
    return child_tasks.act(payload)


if "fork_server" in " ".join(sys.orig_argv):
    Channel.send = send  # type: ignore[method-assign]
