"""One Chromium for each process of the tests, and pages whose faults fail the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from servers.requirements import missing

PATIENCE = 30_000
"""Milliseconds until a test stops waiting. Generous, because no test depends on the speed of the machine."""
ARGUMENTS = ["--disable-dev-shm-usage", "--disable-gpu", "--disable-extensions", "--mute-audio"]
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 360, "height": 740}

expect.set_options(timeout=PATIENCE)


def executable() -> str:
    """Return the path of an installed Chromium. Skip if there is none."""
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    return found[0] if found else missing("browser", "apt-get install chromium")


class Chromium:
    """A browser that the tests of a process share, each in a context of its own."""

    def __init__(self) -> None:
        path = executable()
        self._playwright = sync_playwright().start()
        arguments = [*ARGUMENTS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        self.browser: Browser = self._playwright.chromium.launch(executable_path=path, args=arguments)
        self._loop = asyncio.events._get_running_loop()
        self._leave()

    def close(self) -> None:
        """End the browser."""
        with self.in_use():
            self.browser.close()
            self._playwright.stop()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Let this thread talk to the browser for a block.

        Playwright keeps an event loop "running" in this thread. Outside of the block, it is hidden, or other tests of
        the same process could run no loop of their own.
        """
        asyncio.events._set_running_loop(self._loop)
        try:
            yield
        finally:
            self._leave()

    def _leave(self) -> None:
        asyncio.events._set_running_loop(None)


class Visitor:
    """Somebody with a browser. ``faults``: what no page may do, such as an error in the console."""

    def __init__(self, chromium: Chromium, **options: Any) -> None:
        options = {"viewport": DESKTOP, "locale": "en-GB", "timezone_id": "UTC", **options}
        self.context: BrowserContext = chromium.browser.new_context(**options)
        self.context.set_default_timeout(PATIENCE)
        self.faults: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        self.context.on("console", lambda message: self._console(message.type, message.text))
        self.context.on("weberror", lambda error: self.faults.append(f"error: {error.error}"))
        self.context.on("dialog", self._dialog)

    def expects(self, *patterns: str) -> None:
        """Allow faults that match."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    def page(self) -> Page:
        """Open a new tab."""
        return self.context.new_page()

    def close(self) -> None:
        """Close all tabs."""
        self.context.close()

    @property
    def unexpected(self) -> list[str]:
        """The faults that the test has not allowed."""
        return [fault for fault in self.faults if not any(each.search(fault) for each in self._expected)]

    def _console(self, kind: str, text: str) -> None:
        if kind in ("error", "warning", "assert"):
            self.faults.append(f"console: {text}")

    def _dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()
