"""Which status an error has, for programs and for people."""

from __future__ import annotations

from http import HTTPStatus

from ..errors import InvalidTransition, PayloadError, SchemaError, StoreUnavailable, TaskQueueError
from .auth import Refused
from .params import BadForm, BadQuery


class Refusal(Refused):
    """What an answer says about an error. ``name``: the class of the error."""

    name: str

    @property
    def title(self) -> str:
        """The phrase of the status."""
        return HTTPStatus(self.status).phrase


_STATUS: list[tuple[type[Exception], int]] = [
    (BadQuery, 400),
    (BadForm, 422),
    (PayloadError, 422),
    (LookupError, 404),  # TaskNotFound and UnknownSchedule, too
    (InvalidTransition, 409),
    (StoreUnavailable, 503),
    (SchemaError, 503),
]
_RETRY = {503: {"retry_after": "2"}}


def refusal_of(error: Exception, *, writes: bool) -> Refusal:
    """Return what to answer. ``writes``: a ValueError is about the body, not about the query string."""
    if isinstance(error, Refused):
        found = Refusal(error.status, error.reason, name=error.name or "Refused")
        found.headers = error.headers
        return found
    name = type(error).__name__
    for kind, status in _STATUS:
        if isinstance(error, kind) and (isinstance(error, TaskQueueError | ValueError) or _is_ours(error)):
            return Refusal(status, _text(error), name=name, **_RETRY.get(status, {}))
    if isinstance(error, ValueError) and _is_ours(error):
        return Refusal(422 if writes else 400, _text(error), name=name)
    return Refusal(500, "something went wrong; the log of the dashboard has more", name="Error")


def _is_ours(error: Exception) -> bool:
    """Return whether an error was raised on purpose: a KeyError or a ValueError of Python itself is a fault."""
    return type(error).__module__.startswith("dbtaskqueue")


def _text(error: Exception) -> str:
    return str(error.args[0]) if error.args else type(error).__name__
