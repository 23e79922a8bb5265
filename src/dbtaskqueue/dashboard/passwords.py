"""Passwords: hashed with scrypt, which takes 32 MiB and about a tenth of a second for each guess."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import threading

_COST, _BLOCK, _PARALLEL = 15, 8, 1
_MOST_COST = 20
_SALT = 16
_LENGTH = 32
_hashing = threading.BoundedSemaphore(2)
"""At most two at a time: otherwise many wrong passwords at once would take all memory."""


def hashed(password: str) -> str:
    """Return what a file may hold of a password."""
    salt = os.urandom(_SALT)
    return "$".join(("scrypt", f"{_COST},{_BLOCK},{_PARALLEL}", _text(salt), _text(_scrypt(password, salt, _COST))))


def is_hash(text: str) -> bool:
    """Return whether a text is one that ``hashed`` has made."""
    return _parts(text) is not None


def is_password(password: str, text: str | None) -> bool:
    """Return whether a password belongs to a hash. Without one, take as long as if there were one, and return False."""
    parts = _parts(text or _NOBODY)
    if parts is None:
        return False
    cost, salt, digest = parts
    return hmac.compare_digest(_scrypt(password, salt, cost), digest) and text is not None


def _parts(text: str) -> tuple[int, bytes, bytes] | None:
    kind, *fields = text.split("$")
    if kind != "scrypt" or len(fields) != 3:
        return None
    cost, _, rest = fields[0].partition(",")
    if not cost.isdigit() or not 10 <= int(cost) <= _MOST_COST or rest != f"{_BLOCK},{_PARALLEL}":
        return None
    try:
        salt, digest = (base64.b64decode(field, validate=True) for field in fields[1:])
    except binascii.Error:
        return None
    return (int(cost), salt, digest) if len(salt) >= _SALT and len(digest) == _LENGTH else None


def _scrypt(password: str, salt: bytes, cost: int) -> bytes:
    memory = 2 * 128 * _BLOCK * 2**cost
    with _hashing:
        return hashlib.scrypt(
            password.encode(), salt=salt, n=2**cost, r=_BLOCK, p=_PARALLEL, maxmem=memory, dklen=_LENGTH
        )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


_NOBODY = "$".join(("scrypt", f"{_COST},{_BLOCK},{_PARALLEL}", _text(bytes(_SALT)), _text(bytes(_LENGTH))))
