"""A TCP proxy that loses connections at the worst moment: at COMMIT, before or after it takes effect.

with CuttingProxy(server.port, PostgreSQLConversation) as proxy, TaskQueue(proxy.url(server.url())) as queue:
    proxy.arm(commits, "after")
    with pytest.raises(StoreUnavailable):
        queue.enqueue("x")
    assert proxy.fired
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeVar

from servers.ports import LOOPBACK, free_port
from servers.wire import Conversation

T = TypeVar("T")

Trigger = Callable[[bytes], bool]
"""Called with the SQL of each statement just before it runs, including prepared statements."""

When = Literal["before", "after", "silence"]
"""``before``: the statement never reaches the server. ``after``: the server runs it, but the connection is reset before
the client gets the answer. ``silence``: the server runs it, but the client gets neither the answer nor a reset."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: the other side sees the close as "connection reset"."""


def commits(statement: bytes) -> bool:
    """The trigger for COMMIT as a separate statement."""
    return statement.strip(b" ;\n").upper() == b"COMMIT"


def containing(words: bytes) -> Trigger:
    """Return a trigger for statements that contain these words, in any case; for single statements in autocommit."""
    pattern = re.compile(re.escape(words), re.IGNORECASE)
    return lambda statement: pattern.search(statement) is not None


def any_statement(statement: bytes) -> bool:
    """The trigger for all statements. With ``nth``, a test can fail at each statement of an operation in turn."""
    return True


class _Strike(NamedTuple):
    when: When
    trigger: Trigger
    nth: int


class _Link:
    """A client's connection and the matching connection to the server."""

    def __init__(self, conversation: Conversation, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.conversation = conversation
        self.client = client
        self.server = server
        self.asked = 0
        self.answered = 0
        self.lost: int | None = None
        """The number of the request from which on the client gets no more answers."""
        self.silent = False

    def cut(self) -> None:
        """Reset the connections on both sides, and drop what is still in a buffer."""
        for side in (self.client, self.server):
            end: socket.socket | None = side.get_extra_info("socket")
            if end is not None:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            side.transport.abort()


class CuttingProxy:
    """A proxy for the server on the loopback port ``target``, which may be changed while it runs."""

    def __init__(self, target: int, conversation: Callable[[], Conversation]) -> None:
        self.target = target
        self.port = free_port()
        self.statements = 0
        """The number of statements that have passed."""
        self._conversation = conversation
        self._links: set[_Link] = set()
        self._strike: _Strike | None = None
        self._fired = threading.Event()
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="cutting proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self.thaw()
        self.accept_again()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def url(self, url: str) -> str:
        """Return the server's URL, through this proxy."""
        return url.replace(f":{self.target}/", f":{self.port}/", 1)

    def arm(self, trigger: Trigger, when: When, *, nth: int = 1) -> None:
        """Lose one connection: that of the ``nth`` statement from now on for which the trigger is true."""
        self._fired.clear()
        self._do(self._set_strike(_Strike(when, trigger, nth)))

    def disarm(self) -> None:
        """Cancel ``arm``: let everything pass again."""
        self._do(self._set_strike(None))

    @property
    def fired(self) -> bool:
        """Whether the last ``arm`` has lost its connection."""
        return self._fired.is_set()

    def wait_until_fired(self, within: float = 30.0) -> None:
        """Wait until the last ``arm`` has lost its connection."""
        assert self._fired.wait(within), f"no statement matched the trigger within {within} s"

    @property
    def connections(self) -> int:
        """The number of open connections."""
        return len(self._links)

    def cut(self) -> None:
        """Reset all connections now; new ones are accepted."""
        self._do(self._cut_all())

    def freeze(self) -> None:
        """Let nothing pass in either direction, with all connections open and new ones accepted.

        The kernel still acknowledges what is sent, as on a host whose program hangs.
        """
        self._do(self._set_flow(False))

    def thaw(self) -> None:
        """Let everything pass again, starting with what has accumulated."""
        self._do(self._set_flow(True))

    def refuse(self) -> None:
        """Refuse new connections; open ones continue to work."""
        self._do(self._close_listener())

    def accept_again(self) -> None:
        """Accept new connections after ``refuse``."""
        self._do(self._open_listener())

    def stop(self) -> None:
        """Reset all connections and stop the proxy."""
        if not self._thread.is_alive():
            return
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, act: Coroutine[object, object, T]) -> T:
        """Run something in the proxy's thread and wait for it."""
        return asyncio.run_coroutine_threadsafe(act, self._loop).result(30)

    async def _set_strike(self, strike: _Strike | None) -> None:
        self._strike = strike

    async def _set_flow(self, flows: bool) -> None:
        if flows:
            self._flows.set()
        else:
            self._flows.clear()

    async def _cut_all(self) -> None:
        for link in self._links:
            link.cut()

    async def _open_listener(self) -> None:
        self._listener = await asyncio.start_server(self._serve, LOOPBACK, self.port)

    async def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()

    async def _end(self) -> None:
        await self._close_listener()
        await self._cut_all()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for other in others:
            other.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0.01)  # the transports close in the next iterations of the event loop

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Serve a client's connection until either side closes it or it is lost."""
        await self._flows.wait()
        try:
            answers, server = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            client.transport.abort()
            return
        link = _Link(self._conversation(), client, server)
        self._links.add(link)
        directions = [
            asyncio.ensure_future(self._pump(reader, lambda data: self._to_server(link, data))),
            asyncio.ensure_future(self._pump(answers, lambda data: self._to_client(link, data))),
        ]
        try:
            with contextlib.suppress(asyncio.CancelledError):  # when the proxy stops
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            self._links.discard(link)
            client.close()
            server.close()

    async def _pump(self, reader: asyncio.StreamReader, give: Callable[[bytes], None]) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                await self._flows.wait()
                give(data)

    def _to_server(self, link: _Link, data: bytes) -> None:
        for message in link.conversation.from_client(data):
            if message.statement is not None:
                self.statements += 1
                when = self._strikes(message.statement)
                if when == "before":
                    link.cut()
                    self._fired.set()
                    return
                if when:
                    link.lost, link.silent = link.asked + 1, when == "silence"
            link.server.write(message.raw)
            link.asked += message.ends

    def _to_client(self, link: _Link, data: bytes) -> None:
        for message in link.conversation.from_server(data):
            is_lost = link.lost is not None and link.answered >= link.lost - 1  # earlier answers are not
            if message.needed or not is_lost:
                link.client.write(message.raw)
            link.answered += message.ends
            if is_lost and message.ends and link.answered == link.lost:
                if not link.silent:
                    link.cut()
                self._fired.set()

    def _strikes(self, statement: bytes) -> When | None:
        """Return what to do at this statement, and disarm."""
        strike = self._strike
        if strike is None or not strike.trigger(statement):
            return None
        self._strike = strike._replace(nth=strike.nth - 1) if strike.nth > 1 else None
        return None if self._strike else strike.when
