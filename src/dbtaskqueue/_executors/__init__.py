"""How task code runs. An executor never touches the database: work goes in, outcomes come out."""

from __future__ import annotations

from .thread import ThreadExecutor

EXECUTORS = {"thread": ThreadExecutor}
"""The executors by the name that ``Worker`` and the command line know them by."""
