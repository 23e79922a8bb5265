"""The page that a worker shares with a child: whoever is to stand still is in no transaction then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import Background, until

from dbtaskqueue._executors.process.shared_flags import SharedFlags, new_page


@pytest.fixture
def page() -> Iterator[SharedFlags]:
    page = new_page()
    yield page
    page.close()


def test_a_transaction_is_seen(page: SharedFlags) -> None:
    assert not page.writing
    with page.around_writes(), page.around_writes():
        assert page.writing
    assert not page.writing


def test_who_is_held_begins_none(page: SharedFlags) -> None:
    def write() -> str:
        with page.around_writes():
            return "written"

    page.held = True
    writer = Background(write)
    until(lambda: not page.writing and writer.runs)
    page.held = False
    assert writer.join() == "written"


def test_who_is_in_one_already_does_not_wait(page: SharedFlags) -> None:
    with page.around_writes():
        page.held = True
        with page.around_writes():
            assert page.writing
        assert page.writing
    assert not page.writing
