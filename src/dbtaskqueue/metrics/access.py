"""Who may read the metrics of ``dbtaskqueue metrics --listen``: this machine, or programs with a token."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import ConfigurationError

_TOKEN = re.compile(r"[0-9a-f]{64}")
_ROLES = ("look", "operate", "admin")


class Tokens:
    """A file of tokens with lines ``ROLE NAME SHA256HEX``, as for the dashboard. Any role may read metrics.

    It is read at each request, so a token that was removed ends immediately. Raises ConfigurationError if it is wrong
    at first; later, a wrong line is left out.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        for number, line in enumerate(self._lines(), 1):
            if not _is_comment(line) and _hash_of(line) is None:
                raise ConfigurationError(f"{path}, line {number}: must be ROLE NAME SHA256HEX, with a role of {_ROLES}")

    def accept(self, authorization: str) -> bool:
        """Return whether an Authorization header has one of the tokens."""
        kind, _, token = authorization.partition(" ")
        digest = hashlib.sha256(token.strip().encode()).hexdigest()
        try:
            return kind.lower() == "bearer" and digest in map(_hash_of, self._lines())
        except ConfigurationError:
            return False

    def _lines(self) -> list[str]:
        try:
            return self._path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read {self._path}: {error}") from None


def _is_comment(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")


def _hash_of(line: str) -> str | None:
    """Return the hash in a line; None for a comment and for a wrong line."""
    parts = line.split()
    if _is_comment(line) or len(parts) != 3 or parts[0] not in _ROLES:
        return None
    found = parts[2].lower()
    return found if _TOKEN.fullmatch(found) else None
