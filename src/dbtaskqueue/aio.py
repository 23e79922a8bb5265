"""``AsyncTaskQueue``: a ``TaskQueue`` for programs with an event loop."""

from __future__ import annotations


class AsyncTaskQueue:
    """To be written."""


class AsyncTask:
    """To be written."""
