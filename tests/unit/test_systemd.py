"""The variables that systemd sets for a service, and the notifications that are sent."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from dbtaskqueue._maintenance.supervision import HANGS
from dbtaskqueue._store.server import TIMEOUT
from dbtaskqueue._store.sqlite.connections import LOCK_PATIENCE
from dbtaskqueue._system.systemd import Notifier

MINE = str(os.getpid())


@pytest.mark.parametrize("name", ["", "/", "@", "relative", "vsock:2:1234"])
def test_without_a_valid_socket_nothing_is_sent(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
    assert not notifier.is_there
    assert notifier.watchdog is None
    assert notifier.notify(READY=1) is False


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "90000000"}, 90.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": MINE}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
        ({"WATCHDOG_USEC": "9" * 5000}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog(variables: dict[str, str], seconds: float | None) -> None:
    assert Notifier({"NOTIFY_SOCKET": "@x", **variables}).watchdog == seconds


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_a_notification_arrives(kind: str) -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        name = f"{directory}/notify"
        end.bind(name if kind == "path" else f"\0{name}")
        assert Notifier({"NOTIFY_SOCKET": name if kind == "path" else f"@{name}"}).notify(READY=1, STATUS="well")
        assert end.recv(100) == b"READY=1\nSTATUS=well"


def test_a_missing_supervisor_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": f"{tmp_path}/missing"})
    assert [notifier.notify(READY=1), notifier.notify(READY=1)] == [False, False]
    assert len(caplog.records) == 1


def test_a_supervisor_that_does_not_read_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"{directory}/notify")
        notifier = Notifier({"NOTIFY_SOCKET": f"{directory}/notify"})
        while notifier.notify(WATCHDOG=1):
            pass
    assert len(caplog.records) == 1


def test_no_database_call_takes_long_enough_to_count_as_a_hang() -> None:
    assert max(LOCK_PATIENCE, 2 * TIMEOUT) + 10 < HANGS
