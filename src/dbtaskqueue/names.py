"""What a queue, a key or a task function may be called. Pure."""

from __future__ import annotations

import re

from .checks import shown

_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MAX_KEY = 255
_MAX_FUNCTION = 500


def check_queue(name: str) -> str:
    """``name`` if it is a queue's: 1 to 128 ASCII letters, digits and ``._:-``; else ValueError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a queue's name is 1 to 128 ASCII letters, digits and '._:-', not {shown(name)}")
    return name


def check_key(key: str | None) -> str | None:
    """``key`` if it is a task's key: 1 to 255 characters of any text, told apart exactly; or None; else ValueError."""
    if key is None:
        return None
    if not isinstance(key, str) or not 1 <= len(key) <= _MAX_KEY or _UNSTORABLE.search(key):
        raise ValueError(f"a task's key is a text of 1 to {_MAX_KEY} characters without U+0000, not {shown(key)}")
    return key


def check_function(name: str) -> str:
    """``name`` if a task function may have it: 1 to 500 printable characters; else ValueError."""
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_FUNCTION or not name.isprintable():
        raise ValueError(f"a task function's name is 1 to {_MAX_FUNCTION} printable characters, not {shown(name)}")
    return name
