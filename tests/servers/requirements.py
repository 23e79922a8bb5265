"""What happens where a server is missing: the test is skipped loudly, or fails where it must not be missing.

    DBTASKQUEUE_TEST_REQUIRE=postgresql,mariadb,pgbouncer,galera    (set in CI)

Servers that run already are used instead of started ones for the tests that do not stop theirs:

    DBTASKQUEUE_TEST_POSTGRES_URL=postgresql://user:password@host:port/database
    DBTASKQUEUE_TEST_MARIADB_URL=mariadb://user:password@host:port/database
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

REQUIRE = "DBTASKQUEUE_TEST_REQUIRE"
GIVEN = {"postgresql": "DBTASKQUEUE_TEST_POSTGRES_URL", "mariadb": "DBTASKQUEUE_TEST_MARIADB_URL"}


absent: set[str] = set()
"""The servers that this process found missing."""


def required(name: str) -> bool:
    """Whether this server must exist."""
    return name in os.environ.get(REQUIRE, "").replace(",", " ").split()


def missing(name: str, reason: str) -> NoReturn:
    """End the test, since a server is not there: failed where it is required, else skipped."""
    absent.add(name)
    line = f"NO {name.upper()} SERVER IS INSTALLED: {reason}; NOT TESTED"
    if required(name):
        pytest.fail(f"{line} (and {REQUIRE} demands it)", pytrace=False)
    pytest.skip(line)


def given(name: str) -> str | None:
    """The URL of a server that runs already and is to be used."""
    return os.environ.get(GIVEN.get(name, "")) or None


def must_be_ours(name: str) -> None:
    """Skip a test that stops or kills its server when the server is somebody else's."""
    if given(name):
        pytest.skip(f"this test kills its server, and {GIVEN[name]} names one that is not the tests' own")
