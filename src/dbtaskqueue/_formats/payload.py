"""JSON in and out, with limits that are the same on every engine. Pure.

Values that cannot be stored are refused here, before they reach a database. The message names the place in the value:
``payload.items[3].price: NaN is not JSON``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import PayloadError

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 100
MAX_INTEGER = 2**63 - 1
MIN_INTEGER = -(2**63)

MAX_ERROR = 64 * 1024
_ERROR_HEAD = 16 * 1024

JSON = Any
"""What JSON can hold: None, bool, int, float, str, and lists and dicts of these."""

_SURROGATE = re.compile("[\ud800-\udfff]")


def _encoder() -> Callable[[JSON], str]:
    """Return an encoder for all values. ``JSONEncoder.encode`` makes a new one each time, which takes longer."""
    whole = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)
    make, texts = getattr(json.encoder, "c_make_encoder", None), getattr(json.encoder, "encode_basestring", None)
    try:
        once = make(None, whole.default, texts, None, ":", ",", False, False, False)  # type: ignore[misc]
        once([1], 0)
    except Exception:  # another implementation of Python: this is not part of the public interface
        return whole.encode
    return lambda value: "".join(once(value, 0))


_encode = _encoder()
_decode = json.JSONDecoder().raw_decode


def encode(value: JSON, *, limit: int = MAX_BYTES, name: str = "payload") -> str:
    """Return ``value`` as JSON text of at most ``limit`` bytes. Tuples become lists.

    ``name`` is what messages call the value. Raises PayloadError for NaN, infinities, lone surrogates, U+0000, keys
    that are not strings, integers beyond 64 bits, nesting deeper than 100, values that are not JSON, and a text that is
    too long.
    """
    text = _encode(value) if _is_plain(value, MAX_DEPTH) else None
    if text is None or "\\u0000" in text or not (text.isascii() or not _SURROGATE.search(text)):
        _check(value, name, MAX_DEPTH)  # slower, but names the place
        text = _encode(value)
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit:
        raise PayloadError(f"{name}: {size} bytes of JSON exceed the limit of {limit} bytes")
    return text


def decode(text: str, *, name: str = "payload") -> JSON:
    """Return the value of a stored JSON text. Raises PayloadError if it cannot be read."""
    try:
        if not text.isascii() and _SURROGATE.search(text):
            raise ValueError("it is not valid UTF-8")
        value, end = _decode(text)
        if end != len(text):
            raise ValueError("something follows the value")
        return value
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadError(f"{name}: what is stored cannot be read as JSON ({error})") from None


def clip_error(text: str) -> str:
    """Return ``text`` in a form that can be stored as an error: valid Unicode without U+0000, at most 64 KiB."""
    clean = text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
    if len(clean.encode()) <= MAX_ERROR:
        return clean
    raw = clean.encode()
    head = raw[:_ERROR_HEAD].decode("utf-8", "ignore")
    tail = raw[-(MAX_ERROR - _ERROR_HEAD - 64) :].decode("utf-8", "ignore")
    cut = len(raw) - len(head.encode()) - len(tail.encode())
    return f"{head}\n[… {cut} bytes cut …]\n{tail}"


def _is_plain(value: JSON, depth: int) -> bool:
    """Return whether the value consists of JSON types and is within the limits. Texts are not checked."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(MIN_INTEGER <= value <= MAX_INTEGER)
    if kind is float:
        return math.isfinite(value)
    if depth <= 0:
        return False
    if kind is dict:
        for key in value:
            if type(key) is not str:
                return False
        items = value.values()
    elif kind is list or kind is tuple:
        items = value
    else:
        return False
    for item in items:  # noqa: SIM110 - all() over a generator takes twice as long
        if type(item) is not str and not _is_plain(item, depth - 1):
            return False
    return True


def _check(value: JSON, place: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        _check_text(value, place)
    elif kind is dict or kind is list or kind is tuple:
        _check_container(value, place, depth)
    elif kind is int:
        if not MIN_INTEGER <= value <= MAX_INTEGER:
            raise PayloadError(f"{_shorten(place)}: an integer beyond 64 bits ({MIN_INTEGER} … {MAX_INTEGER})")
    elif kind is float:
        if not math.isfinite(value):
            raise PayloadError(f"{_shorten(place)}: {value!r} is not JSON")
    elif value is None or kind is bool:
        return
    else:
        _check_subclass(value, place, depth)


def _check_container(value: JSON, place: str, depth: int) -> None:
    if depth <= 0:
        raise PayloadError(f"{_shorten(place)}: nested deeper than {MAX_DEPTH} lists and objects")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise PayloadError(f"{_shorten(place)}: the key {_shorten(repr(key))} is not a string")
            _check_text(key, place)
            _check(item, f"{place}.{key}", depth - 1)
    else:
        for index, item in enumerate(value):
            _check(item, f"{place}[{index}]", depth - 1)


def _check_subclass(value: JSON, place: str, depth: int) -> None:
    """Check a subclass of a JSON type (such as IntEnum or OrderedDict) as the type that it derives from."""
    for base in (str, int, float):
        if isinstance(value, base):
            return _check(base.__str__(value) if base is str else base(value), place, depth)
    if isinstance(value, dict | list | tuple):
        return _check_container(value, place, depth)
    hint = getattr(type(value), "_payload_hint", "")
    raise PayloadError(f"{_shorten(place)}: {type(value).__name__} is not JSON{hint}")


def _check_text(text: str, place: str) -> None:
    if "\x00" in text:
        raise PayloadError(f"{_shorten(place)}: U+0000 cannot be stored")
    if not text.isascii() and _SURROGATE.search(text):
        raise PayloadError(f"{_shorten(ascii(place)[1:-1])}: a lone surrogate is not Unicode text")


def _shorten(place: str) -> str:
    return place if len(place) <= 200 else f"{place[:100]}…{place[-90:]}"


def fill_in(value: Any, results: Mapping[str, JSON]) -> None:
    """Put results into a value, each at its place: a JSON pointer (RFC 6901)."""
    for place, result in results.items():
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in place.split("/")[1:]]
        target = value
        for part in path:
            target = target[int(part)] if isinstance(target, list) else target[part]
        target[int(last) if isinstance(target, list) else last] = result
