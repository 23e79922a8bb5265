"""What happens if a server, a browser or a library is missing.

The test is skipped with a message in capitals, or fails if it is required.

    DBTASKQUEUE_TEST_REQUIRE=postgresql,mariadb,pgbouncer,galera,prometheus,browser,libraries    (set in CI)

Tests that do not stop their server can use existing servers instead:

    DBTASKQUEUE_TEST_POSTGRES_URL=postgresql://user:password@host:port/database
    DBTASKQUEUE_TEST_MARIADB_URL=mariadb://user:password@host:port/database
"""

from __future__ import annotations

import importlib
import os
from typing import NoReturn

import pytest

REQUIRE = "DBTASKQUEUE_TEST_REQUIRE"
GIVEN = {"postgresql": "DBTASKQUEUE_TEST_POSTGRES_URL", "mariadb": "DBTASKQUEUE_TEST_MARIADB_URL"}


absent: set[str] = set()
"""The servers that are missing, as found by this process; "browser" if there is no browser."""


def required(name: str) -> bool:
    """Whether this server is required."""
    return name in os.environ.get(REQUIRE, "").replace(",", " ").split()


def missing(name: str, reason: str) -> NoReturn:
    """End the test because a server or a browser is missing: fail it if that is required, else skip it."""
    absent.add(name)
    what = "BROWSER" if name == "browser" else f"{name.upper()} SERVER"
    line = f"NO {what} IS INSTALLED: {reason}; NOT TESTED"
    if required(name):
        pytest.fail(f"{line} (but {REQUIRE} requires it)", pytrace=False)
    pytest.skip(line)


def given(name: str) -> str | None:
    """Return the URL of an existing server to use, or None."""
    return os.environ.get(GIVEN.get(name, "")) or None


def must_be_ours(name: str) -> None:
    """Skip a test that stops or kills its server if the server was not started by the tests."""
    if given(name):
        pytest.skip(f"this test kills its server, but {GIVEN[name]} names one that the tests did not start")


def library(*modules: str) -> None:
    """Skip a module of tests, or fail if "libraries" are required, unless all these modules can be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            line = f"{module} IS NOT INSTALLED ({error}); NOT TESTED"
            if required("libraries"):
                pytest.fail(f"{line} (but {REQUIRE} requires it)", pytrace=False)
            pytest.skip(line, allow_module_level=True)
