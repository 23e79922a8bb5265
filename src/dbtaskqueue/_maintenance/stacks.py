"""The stacks of this process's threads, for errors that show why something takes long."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable


def stacks(of: Callable[[str], bool] = lambda name: True) -> str:
    """Return the stacks of all threads for whose names ``of`` is true, except the calling thread."""
    frames = sys._current_frames()
    parts = [
        f"Thread {thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident]))}"
        for thread in threading.enumerate()
        if of(thread.name) and thread.ident in frames and thread is not threading.current_thread()
    ]
    return "\n".join(parts)
