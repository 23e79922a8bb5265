"""Whether there is a browser at all: without Playwright, this is the one test here, and it says so."""

from __future__ import annotations

from browser.conftest import HAS_PLAYWRIGHT
from servers.requirements import missing


def test_playwright_is_installed() -> None:
    if not HAS_PLAYWRIGHT:
        missing("browser", "pip install playwright")
