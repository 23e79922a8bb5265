"""Fixtures for tests in a real browser: ``site``, a dashboard in a process of its own, and ``page``, a tab that is
signed in there. An error in the browser's console, a JavaScript error or a dialog fails the test."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from servers.requirements import missing

if TYPE_CHECKING:
    from browser.chromium import Chromium, Visitor
    from browser.site import Site
    from playwright.sync_api import Page

HAS_PLAYWRIGHT = importlib.util.find_spec("playwright") is not None
collect_ignore_glob = [] if HAS_PLAYWRIGHT else ["test_[!i]*.py"]  # all but test_installed.py, which says so

Visit = Callable[..., "Visitor"]
MakeSite = Callable[[str], "Site"]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser of this process."""
    if not HAS_PLAYWRIGHT:
        missing("browser", "pip install playwright")
    from browser.chromium import Chromium

    chromium = Chromium()
    yield chromium
    chromium.close()


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[MakeSite]:
    """Return a function that makes a site with the database at a URL. No dashboard runs yet."""
    from browser.site import Site

    with contextlib.ExitStack() as sites:

        def make(url: str) -> Site:
            site = Site(url, tmp_path)
            sites.callback(site.close)
            return site

        yield make


@pytest.fixture
def visit(chromium: Chromium, make_site: MakeSite) -> Iterator[Visit]:
    """Return a function that makes a visitor with a browser context of its own; its options are the context's.

    It needs ``make_site`` only so that visitors leave before their dashboard is killed: a page that still polled would
    report an error.
    """
    from browser.chromium import Visitor

    visitors: list[Visitor] = []

    def make(**options: Any) -> Visitor:
        visitors.append(Visitor(chromium, **options))
        return visitors[-1]

    with chromium.in_use():
        try:
            yield make
        finally:
            for visitor in visitors:
                visitor.close()
        assert [fault for visitor in visitors for fault in visitor.unexpected] == []


@pytest.fixture
def visitor(visit: Visit) -> Visitor:
    """The visitor of ``page``."""
    return visit()


@pytest.fixture
def empty_site(make_site: MakeSite, tmp_path: Path) -> Site:
    """An empty SQLite database. No dashboard runs yet: the test starts it, with its options."""
    return make_site(f"sqlite:///{tmp_path}/taskqueue.sqlite")


@pytest.fixture
def site(empty_site: Site) -> Site:
    """A dashboard on an empty SQLite database."""
    return empty_site.start()


@pytest.fixture
def page(visitor: Visitor, site: Site) -> Page:
    """A tab on the Overview of ``site``, signed in by the link that the dashboard printed."""
    page = visitor.page()
    page.goto(site.link)
    return page
