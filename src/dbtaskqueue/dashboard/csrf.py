"""Tokens that prove that a form was ours.

A token is derived from a secret that the browser keeps in a cookie, and masked with fresh bytes each time: its text
differs in each answer, so that no one can guess it from the sizes of compressed answers (BREACH).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets

from starlette.requests import Request

from .auth import Refused
from .hosts import Hosts
from .params import Form

_LENGTH = 32


def new_seed() -> str:
    """Return a new secret for a browser to keep."""
    return secrets.token_urlsafe(_LENGTH)


def masked(seed: str) -> str:
    """Return a token for the browser that keeps this secret."""
    mask = secrets.token_bytes(_LENGTH)
    return base64.urlsafe_b64encode(mask + _xor(mask, _digest(seed))).decode().rstrip("=")


def is_token_of(seed: str, token: str) -> bool:
    """Return whether a token was made for the browser that keeps this secret."""
    try:
        data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (ValueError, binascii.Error):
        return False
    return len(data) == 2 * _LENGTH and hmac.compare_digest(_xor(data[:_LENGTH], data[_LENGTH:]), _digest(seed))


def _digest(seed: str) -> bytes:
    return hashlib.sha256(b"csrf:" + seed.encode()).digest()


def _xor(first: bytes, second: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(first, second, strict=True))


def check_origin(request: Request, hosts: Hosts, *, is_required: bool) -> None:
    """Refuse a request that another site has made. ``is_required``: also one that does not say who has made it."""
    headers = request.headers
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Refused(403, "the request comes from another site")
    origins = headers.getlist("origin")
    if not origins and not is_required:
        return
    scheme, _, host = (origins[0] if len(origins) == 1 else "").lower().partition("://")
    ours = {headers.get("host", "").lower(), *(hosts.allowed - {"*"})}
    if scheme not in ("http", "https") or host not in ours:
        raise Refused(403, "the Origin of the request is missing, or not this dashboard")


def check_token(request: Request, form: Form, seed: str) -> None:
    """Refuse a request whose form was not made for this browser."""
    token = request.headers.get("x-csrf-token") or form.get("csrf")
    if not seed or not isinstance(token, str) or not is_token_of(seed, token):
        raise Refused(403, "the token of the form is missing or does not belong to you: load the page again")
