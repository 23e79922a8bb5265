"""Bodies of requests: forms and JSON, read within bounds of size, depth and time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import NoReturn
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request

from .._formats.payload import JSON
from .auth import Refused
from .params import BadForm

_WITHIN = 20.0
"""Seconds for a body to arrive."""
_MOST_FIELDS = 1000
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"


async def read_form(request: Request, *, is_api: bool, most: int) -> Mapping[str, JSON]:
    """Return the fields of a form, or a JSON object. An empty body has none. Raises Refused and BadForm."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "a body must not be compressed")
    body = await _read(request, most)
    if not body and kind in ("", _JSON, _FORM):
        return {}
    if kind == _FORM and not is_api:
        return _fields(body)
    if kind == _JSON:
        return _object(body)
    expected = _JSON if is_api else _FORM
    raise Refused(415, f"the content-type of the body must be {expected}, not {kind[:100] or 'missing'}")


async def _read(request: Request, most: int) -> bytes:
    too_large = Refused(413, f"the body is too large: at most {most:,} bytes")
    length = request.headers.get("content-length", "0")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > most):
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(_WITHIN):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the body did not arrive within {_WITHIN:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "the body is not complete") from None
    return b"".join(parts)


def _fields(body: bytes) -> dict[str, JSON]:
    found: dict[str, JSON] = {}
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
    except UnicodeDecodeError:
        raise BadForm("the body is not UTF-8") from None
    except ValueError:
        raise BadForm(f"the form has more than {_MOST_FIELDS:,} fields") from None
    for name, value in pairs:
        before = found.get(name)
        found[name] = value if name not in found else [*(before if isinstance(before, list) else [before]), value]
    return found


def _object(body: bytes) -> dict[str, JSON]:
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        raise BadForm("the body is nested too deeply") from None
    except ValueError as error:
        raise BadForm(f"the body is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadForm("the body must be a JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
