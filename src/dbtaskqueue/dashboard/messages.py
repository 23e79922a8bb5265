"""What became of an action, as the next page says it: one status for results.

The text travels in a cookie that the next page removes. It is only ever shown as text.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from .call import Call

_COOKIE = "dbtaskqueue_said"
_MOST = 600
"""The bytes of a text that travel."""
_SECONDS = 60


def said(call: Call) -> str:
    """Return what became of the last action of this browser; "" if that has been shown."""
    value = call.request.cookies.get(_COOKIE, "")
    try:
        return base64.urlsafe_b64decode(value.encode("ascii")).decode("utf-8", "replace")[:_MOST]
    except (UnicodeEncodeError, binascii.Error):
        return ""


def say(call: Call, response: Response, text: str) -> None:
    """Let the next page of this browser say a text."""
    value = base64.urlsafe_b64encode(text.encode("utf-8", "replace")[:_MOST]).decode("ascii")
    call.set_cookie(response, _COOKIE, value, _SECONDS)


def forget(call: Call, response: Response) -> None:
    """Remove what a page has said."""
    if _COOKIE in call.request.cookies:
        call.set_cookie(response, _COOKIE, "", 0)
