"""The description of the API for programs: ``openapi.json``."""

from __future__ import annotations

from starlette.responses import Response

from ..auth import Refused
from ..call import Call


def openapi(call: Call) -> Response:
    """Return the description."""
    raise Refused(501, "not built yet")
