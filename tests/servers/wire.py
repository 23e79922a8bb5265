"""What the proxy needs to know of the two wire protocols: where a message ends, and which SQL it runs.

TLS and compression are not supported; the tests' servers do not offer them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol


class Message(NamedTuple):
    """A message from the client or from the server."""

    raw: bytes
    statement: bytes | None = None
    """The SQL that the message makes the server run, including SQL that was prepared earlier."""
    ends: bool = False
    """From the client: the server answers this message. From the server: the answer is complete."""
    needed: bool = False
    """The client must get this message before the server can continue (COPY)."""


class Conversation(Protocol):
    """One connection, as seen by the proxy between client and server."""

    def from_client(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that these bytes complete."""
        ...

    def from_server(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that these bytes complete."""
        ...


ENCRYPTION_REQUESTS = (80877103, 80877104)
CANCEL_REQUEST = 80877102


class PostgreSQLConversation:
    """Version 3 of PostgreSQL's protocol: a letter, a length, a body. Only the first message has no letter."""

    def __init__(self) -> None:
        self._client = b""
        self._server = b""
        self._started = False
        self._bare_answers = 0
        self._prepared: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}

    def from_client(self, data: bytes) -> Iterator[Message]:
        self._client += data
        while raw := self._cut_from_client():
            yield self._understood(raw)

    def _cut_from_client(self) -> bytes:
        letter = int(self._started)
        if len(self._client) < letter + 4:
            return b""
        (length,) = struct.unpack_from("!I", self._client, letter)
        if len(self._client) < letter + length:
            return b""
        raw, self._client = self._client[: letter + length], self._client[letter + length :]
        return raw

    def _understood(self, raw: bytes) -> Message:
        if not self._started:
            return self._first(raw)
        kind, body = raw[:1], raw[5:]
        match kind:
            case b"Q":
                return Message(raw, body.rstrip(b"\0"), ends=True)
            case b"P":
                name, text = body.split(b"\0")[:2]
                self._prepared[name] = text
            case b"B":
                portal, name = body.split(b"\0")[:2]
                self._portals[portal] = self._prepared.get(name, b"")
            case b"E":
                return Message(raw, self._portals.get(body.split(b"\0")[0], b""))
        return Message(raw, ends=kind in b"SF")

    def _first(self, raw: bytes) -> Message:
        (code,) = struct.unpack_from("!I", raw, 4)
        if code in ENCRYPTION_REQUESTS:
            self._bare_answers += 1
            return Message(raw)
        self._started = code != CANCEL_REQUEST
        return Message(raw, ends=self._started)

    def from_server(self, data: bytes) -> Iterator[Message]:
        self._server += data
        while raw := self._cut_from_server():
            yield Message(raw, ends=raw[:1] == b"Z", needed=raw[:1] == b"G")

    def _cut_from_server(self) -> bytes:
        size = self._size_from_server()
        if len(self._server) < size:
            return b""
        raw, self._server = self._server[:size], self._server[size:]
        return raw

    def _size_from_server(self) -> int:
        if self._bare_answers and self._server:
            assert self._server[:1] == b"N", "the server encrypts: the proxy would not understand it"
            self._bare_answers -= 1
            return 1
        if len(self._server) < 5:
            return 5
        return 1 + int(struct.unpack_from("!I", self._server, 1)[0])


COM_QUIT, COM_QUERY = 1, 3
MORE_RESULTS = 8


class MariaDBConversation:
    """The text protocol of MariaDB, as PyMySQL speaks it: three bytes of length, a number, a body."""

    def __init__(self) -> None:
        self._client = b""
        self._server = b""
        self._introduced = False
        self._logged_in = False
        self._rows_follow = False
        self._marks = 0

    def from_client(self, data: bytes) -> Iterator[Message]:
        packets, self._client = _packets(self._client + data)
        for raw in packets:
            self._introduced = True
            command = self._logged_in and raw[3] == 0  # packets with other numbers continue a command
            statement = raw[5:] if command and raw[4] == COM_QUERY else None
            yield Message(raw, statement, ends=command and raw[4] != COM_QUIT)

    def from_server(self, data: bytes) -> Iterator[Message]:
        packets, self._server = _packets(self._server + data)
        for raw in packets:
            if self._logged_in:
                yield Message(raw, ends=self._completes(raw[4:]))
            else:
                self._logged_in = self._introduced and raw[4:5] == b"\0"
                yield Message(raw)

    def _completes(self, body: bytes) -> bool:
        """Whether this packet ends the answer to a command."""
        kind = body[:1]
        if kind == b"\xff":  # an error
            self._rows_follow, self._marks = False, 0
            return True
        if not self._rows_follow:
            self._rows_follow = kind != b"\0"
            return kind == b"\0" and not _status(body) & MORE_RESULTS
        if kind != b"\xfe" or len(body) >= 9:
            return False
        self._marks += 1  # one after the columns, one after the rows
        if self._marks < 2:
            return False
        self._rows_follow, self._marks = False, 0
        return not int.from_bytes(body[3:5], "little") & MORE_RESULTS


def _packets(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete packets, and the bytes that are left over."""
    packets = []
    while len(data) >= 4 and len(data) >= (size := 4 + int.from_bytes(data[:3], "little")):
        packets.append(data[:size])
        data = data[size:]
    return packets, data


def _status(body: bytes) -> int:
    """Return the server's status from an OK packet, where it follows two numbers of variable length."""
    at = 1
    for _ in range(2):
        at += {0xFC: 3, 0xFD: 4, 0xFE: 9}.get(body[at], 1)
    return int.from_bytes(body[at : at + 2], "little")
