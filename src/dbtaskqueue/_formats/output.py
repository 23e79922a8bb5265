"""The output of a task: its start and its end are kept, the bytes between them only counted. Pure."""

from __future__ import annotations

import re
import threading
from typing import NamedTuple

FIRST = 16 * 1024
"""The number of bytes kept of the start."""
LAST = 48 * 1024
"""The number of bytes kept of the end."""
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_LEFT_OUT = re.compile(r"\n\[… (\d{1,18}) bytes left out …\]\n")
_BROKEN = "\ufffd"
_MOST_CANDIDATES = 200


class Output:
    """The output of one attempt, at most 64 KiB of it. Safe to write in one thread and read in another."""

    __slots__ = ("_end", "_first", "_left_out", "_lock", "_reported", "_written")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._first = bytearray()
        self._end = bytearray()
        self._left_out = 0
        self._written = 0
        self._reported = 0

    def write(self, data: bytes) -> None:
        """Add output. Only the first and the last bytes of all output are kept."""
        with self._lock:
            self._written += len(data)
            room = FIRST - len(self._first)
            if room > 0:
                self._first += data[:room]
                data = data[room:]
            if not data:
                return
            self._end += data
            if len(self._end) > 2 * LAST:  # not at each write, since moving 48 KiB takes longer than reading a line
                self._cut()

    def _cut(self) -> None:
        surplus = len(self._end) - LAST
        if surplus > 0:
            self._left_out += surplus
            del self._end[:surplus]

    def text(self) -> str:
        """Return what is kept, as text. Bytes that are not UTF-8 become the replacement character."""
        with self._lock:
            self._cut()
            if not self._left_out:
                return _decoded(bytes(self._first + self._end))
            return _decoded(bytes(self._first)) + _marker(self._left_out) + _decoded(bytes(self._end))

    @property
    def written(self) -> int:
        """The number of bytes that were written, kept or not."""
        return self._written

    def take_changed(self) -> str | None:
        """Return the text if anything was written since the last call, else None."""
        if self._written == self._reported:
            return None
        self._reported = self._written
        return self.text()

    def last_lines(self, lines: int = 20, characters: int = 2000) -> str:
        """Return the last lines, for the text of an error; "" if nothing was written."""
        return "\n".join(self.text()[-characters:].splitlines()[-lines:])


def _decoded(data: bytes) -> str:
    return _UNSTORABLE.sub(_BROKEN, data.decode("utf-8", "replace"))


def _marker(left_out: int) -> str:
    return f"\n[… {left_out} bytes left out …]\n"


class OutputFollower:
    """Finds the new part of an ``Output`` that is read repeatedly while it grows.

    No text is returned twice. A line replaces what was written and left out between two reads.
    """

    def __init__(self) -> None:
        self._shown = 0
        self._tail = ""
        self._position: int | None = None  # in bytes, once something was left out; until then, the text is complete

    def new_text(self, text: str, *, ended: bool = True) -> str:
        """Return the part of ``text`` that earlier calls did not have.

        Unless it has ended, an incomplete character or line end is kept for the next call.
        """
        first, left_out, end = _parts(text)
        waiting = 0 if ended else len(_waiting(end if left_out else text))
        if not left_out:
            new = text[self._shown : len(text) - waiting]
        else:
            position = FIRST + left_out + LAST - waiting
            end = end[: len(end) - waiting]
            new = self._since(first, left_out, end, position)
            self._position = position
        self._shown += len(new)
        self._tail = (self._tail + new)[-FIRST - LAST :]
        return new

    def _since(self, first: str, left_out: int, end: str, position: int) -> str:
        if self._position is None and self._shown < len(first):
            return first[self._shown :] + _marker(left_out) + end
        before = _size(self._tail) if self._position is None else self._position
        if (missed := position - LAST - before) > 0:
            return _marker(missed) + end
        return end[_overlap(self._tail, end, -missed) :]


def _parts(text: str) -> tuple[str, int, str]:
    """Return the start, the number of bytes left out, and the end. A task may have written such a marker itself."""
    for found in _LEFT_OUT.finditer(text):
        first, end = text[: found.start()], text[found.end() :]
        if _may_have(first, FIRST) and _may_have(end, LAST) and int(found[1]) > 0:
            return first, int(found[1]), end
    return text, 0, ""


def _may_have(text: str, size: int) -> bool:
    return _size(text) <= size <= _size(text) + 2 * text.count(_BROKEN)


def _size(text: str) -> int:
    """Return the least number of bytes that the text was. A replacement character stands for one to three bytes."""
    return len(text.encode("utf-8", "replace")) - 2 * text.count(_BROKEN)


def _waiting(text: str) -> str:
    return text[-1:] if text.endswith((_BROKEN, "\r")) else ""


def _overlap(tail: str, end: str, size: int) -> int:
    """Return how many characters at the start of ``end`` are also the end of ``tail``: ``size`` bytes if all is UTF-8.

    Otherwise, return the nearest number for which the texts agree, apart from a character that was cut.
    """
    expected = len(_last(tail, size))
    doubt = min(2 * tail.count(_BROKEN) + 3, _MOST_CANDIDATES)
    for number in sorted(range(max(0, expected - doubt), expected + doubt + 1), key=lambda n: abs(n - expected)):
        if number <= min(len(tail), len(end)) and tail[len(tail) - number :][3:] == end[:number][3:]:
            return number
    return min(expected, len(end))


def _last(text: str, size: int) -> str:
    """Return the last ``size`` bytes of a text. Each replacement character counts as one byte."""
    return text.replace(_BROKEN, "?").encode("utf-8", "replace")[-size:].decode("utf-8", "replace") if size > 0 else ""


class OutputPart(NamedTuple):
    """The output after a position. ``position``: where it ends; ``left_out``: the bytes within it that are not kept.

    Positions are in bytes of all output. Where bytes were not UTF-8, they are about right.
    """

    text: str
    position: int
    left_out: int


def output_after(text: str, position: int, *, ended: bool) -> OutputPart:
    """Return the part of a stored output that begins at a position, for a reader that asks again and again.

    Unless it has ended, an incomplete character or line end at its end is kept for the next call. Where bytes are left
    out, a line says so.
    """
    first, left_out, end = _parts(text)
    waiting = 0 if ended else len(_waiting(end if left_out else text))
    if not left_out:
        data = _as_bytes(text[: len(text) - waiting])
        return OutputPart(_from(data, position), max(position, len(data)), 0)
    # counted from its start, where each byte of a character that was cut became a replacement character of its own
    tail, start = _as_bytes(end[: len(end) - waiting]), FIRST + left_out
    total = start + len(tail)
    missed = min(left_out, start - position)
    if missed > 0:
        return OutputPart(_from(_as_bytes(first), position) + _marker(missed) + _from(tail, 0), total, missed)
    return OutputPart(_from(tail, position - start), max(position, total), 0)


def _as_bytes(text: str) -> bytes:
    """Return a text with one byte for each replacement character, as ``_size`` counts it."""
    return text.encode("utf-8", "replace").replace(_BROKEN.encode(), b"\xff")


def _from(data: bytes, position: int) -> str:
    return data[position:].decode("utf-8", "replace")
