"""Connections of users that are not the engine's own driver's: sessions, other drivers, and those of an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import asyncio


class OnLoop(NamedTuple):
    """A connection that only an event loop may use.

    The caller's coroutine awaits while a thread of ours stores the task through the connection, statement by statement,
    each run by the loop.
    """

    connection: object
    loop: asyncio.AbstractEventLoop
