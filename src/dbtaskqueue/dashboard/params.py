"""What a request says: its query string and its body, read with bounds. Unknown names and bad values are errors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from .._formats import quantities
from .._formats.payload import JSON

T = TypeVar("T")

_MOST_CHARACTERS = 2500
_MOST_FIELDS = 40
"""More than the 30 filters with 2,000 characters that a search may have: a URL also has a sort, a cursor and others."""
_MOST_ENCODED = 4 * _MOST_CHARACTERS
_BIGGEST = 2**63 - 1


class BadQuery(ValueError):
    """The query string has an unknown name or a bad value. The message names it."""


class BadForm(ValueError):
    """The body has an unknown or missing field, or a bad value. The message names it."""


class Query:
    """The query string. Each name that is read is known; ``done`` refuses the others.

    Raises BadQuery.
    """

    error: type[ValueError] = BadQuery
    what = "parameter"

    def __init__(self, text: str) -> None:
        if len(text) > _MOST_ENCODED:
            raise BadQuery(f"the query string is too long: at most {_MOST_CHARACTERS:,} characters")
        try:
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS)
        except UnicodeDecodeError:
            raise BadQuery("the query string is not UTF-8") from None
        except ValueError:
            raise BadQuery(f"too many parameters: at most {_MOST_FIELDS}") from None
        if sum(len(name) + len(value) for name, value in pairs) > _MOST_CHARACTERS:
            raise BadQuery(f"the query string is too long: at most {_MOST_CHARACTERS:,} characters")
        self.pairs: Sequence[tuple[str, str]] = pairs
        self._known = {"part"}

    def many(self, name: str) -> list[str]:
        """Return all values of a name."""
        self._known.add(name)
        return [value for each, value in self.pairs if each == name]

    def text(self, name: str, default: T = None) -> str | T:  # type: ignore[assignment]
        """Return the value of a name that is given at most once."""
        values = self.many(name)
        if len(values) > 1:
            raise BadQuery(f"{name} is given {len(values)} times")
        return values[0] if values else default

    def name(self, name: str = "name") -> str:
        """Return a name that must be given and not be empty."""
        found = self.text(name)
        if not found:
            raise BadQuery(f"{name} is missing or empty: add ?{name}=…")
        return found

    def number(self, name: str, default: T = None, *, least: int = 0, most: int = _BIGGEST) -> int | T:  # type: ignore[assignment]
        """Return a whole number within bounds."""
        text = self.text(name)
        if text is None:
            return default
        digits = text.removeprefix("-")
        found = int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
        if found is None or not least <= found <= most:
            raise BadQuery(f"{name} must be a whole number from {least} to {most}, not {brief(text)}")
        return found

    def seconds(self, name: str, default: T = None, *, most: float = math.inf) -> float | T:  # type: ignore[assignment]
        """Return a duration in seconds, written as 90, 90s, 15m, 2h or 30d."""
        text = self.text(name)
        if text is None:
            return default
        try:
            found = quantities.seconds(text)
        except ValueError as error:
            raise BadQuery(f"{name}: {error}") from None
        if found > most:
            raise BadQuery(f"{name} must be at most {most:g} s, not {brief(text)}")
        return found

    def choice(self, name: str, words: Collection[str], default: T = None) -> str | T:  # type: ignore[assignment]
        """Return one of these words."""
        text = self.text(name)
        if text is None:
            return default
        if text not in words:
            raise BadQuery(f"{name} must be one of {', '.join(words)}, not {brief(text)}")
        return text

    def without(self, *names: str) -> dict[str, list[str]]:
        """Return all values by name, except those of these names."""
        found: dict[str, list[str]] = {}
        for name, value in self.pairs:
            if name not in names:
                found.setdefault(name, []).append(value)
        return found

    def others(self) -> list[tuple[str, str]]:
        """Return the pairs whose names have not been read, such as the filters of a search."""
        return [(name, value) for name, value in self.pairs if name not in self._known]

    def done(self) -> None:
        """Refuse names that have not been read."""
        for name, _ in self.others():
            known = ", ".join(sorted(self._known))
            raise BadQuery(f"unknown parameter {brief(name)}; known here: {known}")


class Form:
    """The body of a request: the fields of a form, or a JSON object.

    The values of a form are texts, or lists of texts where a name is repeated. Raises BadForm.
    """

    def __init__(self, values: Mapping[str, JSON]) -> None:
        self.values = values
        self._known = {"csrf"}

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value as it was sent."""
        self._known.add(name)
        return self.values.get(name, default)

    def done(self) -> None:
        """Refuse names that have not been read."""
        for name in self.values:
            if name not in self._known:
                raise BadForm(f"unknown field {brief(name)}; known here: {', '.join(sorted(self._known))}")


def brief(text: str) -> str:
    """Return a text as an error shows it: quoted, and cut."""
    return repr(text if len(text) <= 60 else text[:60] + "…")
