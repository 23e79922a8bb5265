"""Filters as words, for command lines and search boxes: ``state:failed error:"timed out" ended:24h``. Pure.

A bare number is an id. Any other bare word, or a quoted text, is a text that occurs in the task.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..checks import listed, shown
from .filters import NAMES, Filters, check_size, is_filter

_NAME = re.compile(r"(payload\.[^:\s\"]+|[a-z][a-z_]*):(?!//)(.*)", re.DOTALL)
_PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)|(")', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
Where = dict[str, list[str]]


def from_arguments(arguments: Sequence[str]) -> Where:
    """Return the filters of command line arguments, each of which is one word. Raises ValueError."""
    return _where(_split(argument) for argument in arguments)


def from_text(text: str) -> Where:
    """Return the filters of a search box. Texts with spaces are in double quotes. Raises ValueError."""
    return _where(_split(word) for word in _words(text))


def from_pairs(pairs: Iterable[tuple[str, str]]) -> Where:
    """Return the filters of a URL's query. Empty values are left out, as a form sends them. Raises ValueError."""
    return _where((name, value) for name, value in pairs if value)


def to_words(filters: Filters) -> str:
    """Return filters as words that ``from_text`` reads."""
    words = []
    for term in filters.terms:
        if term.name == "text":
            words += [_quoted(text, always=True) for text in term.said]
        elif term.name in ("queue", "state", "id"):
            words.append(f"{term.name}:{_quoted(','.join(term.said))}")
        else:
            words += [f"{term.name}:{_quoted(text)}" for text in term.said]
    return " ".join(words)


def _where(pairs: Iterable[tuple[str, str]]) -> Where:
    found = list(pairs)
    check_size(found)
    where: Where = {}
    for name, value in found:
        if not is_filter(name):
            raise ValueError(
                f"unknown filter {shown(name)}; the filters are {listed(NAMES, 30)}."
                ' To search for a text with a colon, quote it: "a: b"'
            )
        if not value:
            raise ValueError(f"{name}: a value is needed, as in {name}:VALUE")
        where.setdefault(name, []).append(value)
    return where


def _split(word: str) -> tuple[str, str]:
    """Return the name and the value of a word."""
    match = _NAME.fullmatch(word)
    if match is not None:
        return match[1], _unquoted(match[2])
    if word.isascii() and word.isdigit():
        return "id", word
    return "text", _unquoted(word)


def _words(text: str) -> list[str]:
    """Split a text at spaces outside of quotes. The quotes stay."""
    words: list[str] = []
    end = -1
    for match in _PIECE.finditer(text):
        if match[3]:
            raise ValueError(f"a quote is not closed in {shown(text)}")
        if match.start() == end:
            words[-1] += match[0]
        else:
            words.append(match[0])
        end = match.end()
    return words


def _unquoted(text: str) -> str:
    match = _PIECE.fullmatch(text)
    return _ESCAPED.sub(r"\1", match[1]) if match is not None and match[1] is not None else text


def _quoted(text: str, *, always: bool = False) -> str:
    if always or not text or re.search(r"[\s\"]", text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text
