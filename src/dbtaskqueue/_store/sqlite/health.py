"""What ``doctor`` reports about a SQLite file."""

from __future__ import annotations

import os
import shlex
import sqlite3

from ..contract import Finding
from .files import not_writable

_LARGE_LOG = 64 * 1024 * 1024
_WAL_RESET_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


def findings(path: str, synchronous: str, connection: sqlite3.Connection) -> list[Finding]:
    """Return engine, version, durability, journal mode, size and integrity, each with a suggested fix if needed."""
    journal, file = _pragma(connection, "PRAGMA journal_mode"), shlex.quote(path)
    found = [
        Finding("engine", "SQLite"),
        _version(),
        Finding("file", path),
        Finding("size", f"{os.path.getsize(path)} bytes, log {_size(path + '-wal')} bytes"),
        Finding("journal mode", journal, None if journal == "wal" else f"sqlite3 {file} 'PRAGMA journal_mode = WAL'"),
        Finding("durability", f"synchronous={synchronous}: {_DURABILITY[synchronous]}"),
    ]
    closed = not_writable(path)
    if closed:
        advice = f"chmod u+w {shlex.join(closed)}"
        found.append(Finding("rights", f"this user may not write {' and '.join(closed)}", advice, True))
    if _size(path + "-wal") > _LARGE_LOG:
        found.append(
            Finding(
                "log",
                "large: a reader keeps a transaction open",
                f"sqlite3 {file} 'PRAGMA wal_checkpoint(TRUNCATE)'",
            )
        )
    damage = _pragma(connection, "PRAGMA quick_check(1)")
    if damage != "ok":
        found.append(Finding("integrity", damage, f"sqlite3 {file} .recover | sqlite3 recovered.sqlite", True))
    return found


_DURABILITY = {
    "NORMAL": "an accepted task survives a crash of the program, perhaps not a power failure",
    "FULL": "an accepted task survives a power failure",
    "EXTRA": "an accepted task survives a power failure",
}


def _version() -> Finding:
    version = sqlite3.sqlite_version_info
    fixed = version >= _WAL_RESET_FIXED[0] or any(
        version[:2] == good[:2] and version >= good for good in _WAL_RESET_FIXED
    )
    if fixed:
        return Finding("version", sqlite3.sqlite_version)
    return Finding("version", f"{sqlite3.sqlite_version} (with the rare WAL-reset bug, fixed in 3.51.3)")


def _pragma(connection: sqlite3.Connection, statement: str) -> str:
    return str(connection.execute(statement).fetchone()[0])


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
