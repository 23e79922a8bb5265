"""What a task writes while it runs: the beginning and the end are kept, the middle is counted. Pure."""

from __future__ import annotations

import re
import threading

FIRST = 16 * 1024
"""Bytes kept of the beginning."""
LAST = 48 * 1024
"""Bytes kept of the end."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Output:
    """The output of one attempt, at most 64 KiB of it. Safe to write in one thread and read in another."""

    __slots__ = ("_end", "_first", "_left_out", "_lock", "_told", "_written")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first = bytearray()
        self._end = bytearray()
        self._left_out = 0
        self._written = 0
        self._told = 0

    def write(self, data: bytes) -> None:
        """Keep what is among the first or the last bytes."""
        with self._lock:
            self._written += len(data)
            room = FIRST - len(self._first)
            if room > 0:
                self._first += data[:room]
                data = data[room:]
            if not data:
                return
            self._end += data
            if len(self._end) > 2 * LAST:  # not at each write: moving 48 KiB costs more than reading a line
                self._cut()

    def _cut(self) -> None:
        surplus = len(self._end) - LAST
        if surplus > 0:
            self._left_out += surplus
            del self._end[:surplus]

    def text(self) -> str:
        """What is kept, as text; what is no UTF-8 shows as the replacement character."""
        with self._lock:
            self._cut()
            if not self._left_out:
                return _decoded(bytes(self._first + self._end))
            marker = f"\n[… {self._left_out} bytes left out …]\n"
            return _decoded(bytes(self._first)) + marker + _decoded(bytes(self._end))

    @property
    def written(self) -> int:
        """Bytes that were written, kept or not."""
        return self._written

    def news(self) -> str | None:
        """The text, if anything was written since the last call."""
        if self._written == self._told:
            return None
        self._told = self._written
        return self.text()

    def last_lines(self, lines: int = 20, characters: int = 2000) -> str:
        """The end of it, for an error's text; empty if nothing was written."""
        return "\n".join(self.text()[-characters:].splitlines()[-lines:])


def _decoded(data: bytes) -> str:
    return _UNSTORABLE.sub("\ufffd", data.decode("utf-8", "replace"))
