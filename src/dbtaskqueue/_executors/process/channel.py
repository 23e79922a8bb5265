"""JSON messages between a worker, its fork server and a child, over a socket. They can carry file descriptors.

If this package is upgraded while a worker runs, the three may have different versions. So every value in a message has
a name, a reader ignores names that it does not know, and a name that is added later has a default.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

_MAGIC = b"dbtq"
"""The start of each message. Anything else that a task writes into its socket is recognized as invalid."""
_HEADER = struct.Struct(f"!{len(_MAGIC)}sI")
_CHUNK = 2**16
_MAX_FDS = 16

Message = dict[str, Any]
_Record = TypeVar("_Record", bound=NamedTuple)


def record_from(kind: type[_Record], named: Mapping[str, Any]) -> _Record:
    """Return a record that was sent as ``_asdict()``. Raises TypeError if a name without a default is missing."""
    make: Callable[..., _Record] = kind
    return make(**{name: named[name] for name in kind._fields if name in named})


class Channel:
    """One end of the socket. Only ``deliver``, ``flush_all`` and ``next`` block.

    Raises OSError if the other end is closed, and ValueError if it sent something that is not a message.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._incoming = bytearray()
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._fds: deque[int] = deque()
        self._messages: deque[Message] = deque()

    def fileno(self) -> int:
        """Return the socket's descriptor, for a selector."""
        return self._end.fileno()

    def close(self) -> None:
        """Close this end."""
        self._end.close()

    def end_sending(self) -> None:
        """Send nothing more. The other end reads EOF; what it sends afterwards is still received."""
        with contextlib.suppress(OSError):  # it is closed already
            self._end.shutdown(socket.SHUT_WR)

    @property
    def is_behind(self) -> bool:
        """Whether something waits to be sent. If so, call ``flush`` when the socket can be written."""
        return bool(self._outgoing)

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send a message now, or when there is room. Raises OSError if its descriptors cannot be sent now."""
        text = json.dumps(message).encode()
        outgoing = _HEADER.pack(_MAGIC, len(text)) + text, fds
        self._outgoing.append(outgoing)
        try:
            self.flush()
            if fds:
                self.flush_all()
        except OSError:
            if self._outgoing and self._outgoing[-1] is outgoing:  # none of it was sent; the caller closes its fds
                self._outgoing.pop()
            raise

    def flush(self) -> None:
        """Send as much of the waiting data as there is room for."""
        while self._outgoing:
            data, fds = self._outgoing[0]
            try:
                sent = socket.send_fds(self._end, [data], list(fds)) if fds else self._end.send(data)
            except BlockingIOError:
                return
            if sent == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = data[sent:], ()

    def deliver(self, message: Message) -> None:
        """Send a message, and wait until it is sent."""
        self.send(message)
        self.flush_all()

    def flush_all(self) -> None:
        """Wait until everything is sent."""
        while self._outgoing:
            self._wait(select.POLLOUT)
            self.flush()

    def receive(self) -> list[Message]:
        """Return the messages that have arrived. Raises EOFError if there are none and the other end is closed."""
        ended = False
        try:
            while not ended:
                data, fds, _, _ = socket.recv_fds(self._end, _CHUNK, _MAX_FDS)
                for fd in fds:
                    os.set_inheritable(fd, False)
                self._fds += fds
                self._incoming += data
                self._parse()  # before the next chunk, so that invalid data is not collected
                ended = not data
                if len(data) < _CHUNK:
                    break
        except BlockingIOError:
            pass
        except ConnectionError:
            ended = True
        messages = list(self._messages)
        self._messages.clear()
        if ended and not messages:
            raise EOFError("the other end is closed")
        return messages

    def next(self, timeout: float | None = None) -> Message | None:
        """Return the next message, or None after ``timeout`` seconds. Raises EOFError if the other end is closed."""
        while not self._messages:
            if not self._wait(select.POLLIN, timeout):
                return None
            self._messages += self.receive()
        return self._messages.popleft()

    def take_fds(self, count: int) -> list[int]:
        """Return the next received file descriptors. Raises OSError if this process has too many open files."""
        if len(self._fds) < count:  # too many open files: the kernel has dropped some
            while self._fds:
                os.close(self._fds.popleft())
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return [self._fds.popleft() for _ in range(count)]

    def _wait(self, events: int, timeout: float | None = None) -> bool:
        poll = select.poll()  # unlike select(), it takes descriptors above 1023
        poll.register(self._end, events)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def _parse(self) -> None:
        data, start = self._incoming, 0
        while rest := len(data) - start:
            if data[start : start + len(_MAGIC)] != _MAGIC[:rest]:
                raise ValueError("what was received is not a message")
            if rest < _HEADER.size:
                break
            body = start + _HEADER.size
            end = body + _HEADER.unpack_from(data, start)[1]
            if len(data) < end:
                break
            message = json.loads(data[body:end])
            if not isinstance(message, dict):
                raise ValueError("what was received is not a message")
            self._messages.append(message)
            start = end
        del data[:start]
