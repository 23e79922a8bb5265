"""The files of users and tokens: one a line, ``ROLE NAME SECRET``. They are read again when they change."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import ConfigurationError
from .auth import Role, User, check_role
from .passwords import is_hash

_log = logging.getLogger("dbtaskqueue.dashboard")
_MOST_NAME = 100
_TOKEN = re.compile(r"[0-9a-f]{64}")


class Person(NamedTuple):
    """A line of a file. ``secret``: the hash of a password or of a token."""

    role: Role
    name: str
    secret: str

    @property
    def user(self) -> User:
        """The user."""
        return User(self.name, self.role)

    @property
    def fingerprint(self) -> str:
        """What changes with the name and the secret: a session that was opened with another one has ended."""
        return hashlib.sha256(f"{self.name} {self.secret}".encode()).hexdigest()[:16]


class People:
    """A file of users (``kind`` "users") or of tokens ("tokens"). Raises ConfigurationError if it is wrong at first.

    Later, a wrong line is left out and logged, and a file that cannot be read has no one in it.
    """

    def __init__(self, path: str, kind: str) -> None:
        self._path = Path(path)
        self._is_secret = {"users": is_hash, "tokens": lambda text: _TOKEN.fullmatch(text.lower()) is not None}[kind]
        self._seen: object = None
        self._people: list[Person] = []
        self._read(_raise)

    def __iter__(self) -> Iterator[Person]:
        self._read(_warn)
        return iter(self._people)

    def named(self, name: str) -> Person | None:
        """Return the user with this name, or None."""
        return next((person for person in self if person.name == name), None)

    def with_secret(self, secret: str) -> Person | None:
        """Return the one with this hash of a token, or None."""
        return next((person for person in self if person.secret.lower() == secret), None)

    def _read(self, report: Callable[[str], None]) -> None:
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._seen = seen
                text = self._path.read_text(encoding="utf-8")
                self._people = list(_people(self._path, text.splitlines(), self._is_secret, report))
        except (OSError, UnicodeDecodeError) as error:
            if self._seen != str(error):
                self._seen = str(error)
                self._people = []
                report(f"cannot read {self._path}: {error}")


def check_person(name: str, role: str) -> tuple[str, Role]:
    """Return a name and a role as a line may have them. Raises ValueError."""
    if not name or len(name) > _MOST_NAME or not name.isprintable() or " " in name or name.startswith("#"):
        raise ValueError(f"invalid name {name[:_MOST_NAME]!r}: 1 to {_MOST_NAME} characters, without spaces")
    return name, check_role(role)


def _people(
    path: Path, lines: Iterable[str], is_secret: Callable[[str], bool], report: Callable[[str], None]
) -> Iterator[Person]:
    names = set()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            person = _person(line, is_secret)
            if person.name in names:
                raise ValueError(f"{person.name} has two lines")
        except ValueError as error:
            report(f"{path}, line {number}: {error}")
            continue
        names.add(person.name)
        yield person


def _person(line: str, is_secret: Callable[[str], bool]) -> Person:
    parts = line.split()
    if len(parts) != 3:
        raise ValueError("must be ROLE NAME SECRET")
    name, role = check_person(parts[1], parts[0])
    if not is_secret(parts[2]):
        raise ValueError(f"the secret of {name} is not a hash; make one with dbtaskqueue dashboard-user, or sha256sum")
    return Person(role, name, parts[2])


def _raise(text: str) -> None:
    raise ConfigurationError(text)


def _warn(text: str) -> None:
    _log.error("%s", text)
