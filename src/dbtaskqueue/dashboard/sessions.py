"""Sessions in signed cookies: nothing is stored on the server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

SECONDS = 12 * 3600
"""How long a session lasts."""


class Session(NamedTuple):
    """Who has signed in: ``kind`` says how, ``fingerprint`` with which secret."""

    kind: str
    name: str
    fingerprint: str


class Sessions:
    """Signs sessions and checks them. The key is new in each process, so a restart signs everybody out."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._key = secrets.token_bytes(32)
        self._now = now

    def sign(self, session: Session) -> str:
        """Return the cookie of a new session."""
        # the nonce makes the cookie a secret of this browser, from which its form tokens are derived
        data = json.dumps([*session, int(self._now()) + SECONDS, secrets.token_urlsafe(16)]).encode()
        return f"{_text(data)}.{_text(self._signature(data))}"

    def read(self, cookie: str) -> Session | None:
        """Return the session of a cookie, or None if it has ended or was not signed here."""
        text, _, signature = cookie.partition(".")
        try:
            data, given = _data(text), _data(signature)
        except ValueError:
            return None
        if not hmac.compare_digest(self._signature(data), given):
            return None
        kind, name, fingerprint, until, _ = json.loads(data)
        return Session(kind, name, fingerprint) if self._now() < until else None

    def _signature(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _data(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
