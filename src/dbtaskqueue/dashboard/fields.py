"""Reading bodies: fields of a form, which are texts, or values of a JSON object.

An empty field of a form is not given, and neither is null in JSON. Each function raises BadForm, which names the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .._formats import quantities
from .._formats.payload import JSON
from .params import BadForm, Form, brief

_BIGGEST = 2**63 - 1


class BadField(BadForm):
    """A field has a bad value. ``field``: its name, so that a form can say so at its place."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


def given(form: Form, name: str) -> Any:
    """Return a value as it was sent; None if it was not given."""
    value = form.get(name)
    return None if value == "" else value


def text(form: Form, name: str) -> str | None:
    """Return a text, or None."""
    value = given(form, name)
    if value is not None and not isinstance(value, str):
        raise BadField(name, f"must be a text, not {_shown(value)}")
    return value


def number(form: Form, name: str, least: int = 0, most: int = _BIGGEST) -> int | None:
    """Return a whole number, or None."""
    value = given(form, name)
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and value.isascii() and len(value) < 20:
        value = int(value)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most):
        raise BadField(name, f"must be a whole number from {least} to {most}, not {_shown(value)}")
    return value


def seconds(form: Form, name: str) -> float | None:
    """Return a duration in seconds, which is a number or a text such as 90s, 15m, 2h or 30d; or None."""
    value = given(form, name)
    if isinstance(value, str):
        try:
            return quantities.seconds(value.strip())
        except ValueError as error:
            raise BadField(name, f"must be a duration: {error}") from None
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool) or not _is_age(value)):
        raise BadField(name, f"must be a number of seconds of at least 0, not {_shown(value)}")
    return value


def flag(form: Form, name: str, default: bool = False) -> bool:
    """Return a yes or no: true or false, or whether a box of a form is checked."""
    value = given(form, name)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    if value not in ("1", "on", "true", "0", "false"):
        raise BadField(name, f"must be true or false, not {_shown(value)}")
    return value not in ("0", "false")


def words(form: Form, name: str, known: Collection[str], default: Collection[str] = ()) -> list[str]:
    """Return some of these words, each given once."""
    value = given(form, name)
    found = list(default) if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(word, str) and word in known for word in found):
        raise BadField(name, f"must be of {', '.join(known)}, not {_shown(value)}")
    return list(dict.fromkeys(found))


def mapping(form: Form, name: str) -> Mapping[str, JSON]:
    """Return a JSON object; empty if it is not given."""
    value = given(form, name)
    if value is not None and not isinstance(value, dict):
        raise BadField(name, f"must be an object, not {_shown(value)}")
    return value or {}


def json_text(name: str, source: str) -> JSON:
    """Return the value of a text that a person has written as JSON; a mistake is named with its line and column."""
    try:
        value: JSON = json.loads(source, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadField(name, f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadField(name, "is nested too deeply") from None
    except ValueError as error:
        raise BadField(name, f"is not JSON: {error}") from None
    return value


@contextmanager
def as_bad_form() -> Iterator[None]:
    """Raise BadForm in place of the ValueError or TypeError of a check of the library."""
    try:
        yield
    except BadForm:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise BadForm(str(error)) from None


def _is_age(value: float) -> bool:
    return 0 <= value < 1e18 and not math.isnan(value)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def _shown(value: object) -> str:
    return brief(value if isinstance(value, str) else json.dumps(value))
