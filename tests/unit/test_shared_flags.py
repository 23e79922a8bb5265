"""The flags that a worker shares with a child. A child that is being suspended starts no transaction."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from helpers import Background, until

from dbtaskqueue._executors.process.shared_flags import SharedFlags, new_flags


@pytest.fixture
def flags() -> Iterator[SharedFlags]:
    flags = new_flags()
    yield flags
    flags.close()


def test_a_transaction_is_visible_to_the_worker(flags: SharedFlags) -> None:
    assert not flags.writing
    with flags.around_writes(), flags.around_writes():
        assert flags.writing
    assert not flags.writing


def test_a_suspended_child_starts_no_transaction(flags: SharedFlags) -> None:
    def write() -> str:
        with flags.around_writes():
            return "written"

    flags.suspended = True
    writer = Background(write)
    until(lambda: not flags.writing and writer.runs)
    flags.suspended = False
    assert writer.join() == "written"


def test_a_thread_in_a_transaction_does_not_wait(flags: SharedFlags) -> None:
    with flags.around_writes():
        flags.suspended = True
        with flags.around_writes():
            assert flags.writing
        assert flags.writing
    assert not flags.writing
