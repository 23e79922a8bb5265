"""Notifies systemd as in sd_notify(3): sends datagrams to the socket that ``$NOTIFY_SOCKET`` names. Pure.

Without such a socket, or if no one reads it, nothing happens: a worker does not depend on what started it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping

from .log import event

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""The variables that systemd sets for a service. They are removed from the environment of tasks' processes."""
_SEND_TIMEOUT = 2.0
"""Seconds to wait until systemd has room for a datagram."""


class Notifier:
    """Sends notifications to systemd, if it has started this service. No method raises."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._has_failed = False
        self.watchdog = _watchdog(environment) if self.is_there else None
        """Seconds within which systemd expects the next watchdog notification; None without a watchdog."""

    @property
    def is_there(self) -> bool:
        """Whether there is a socket for notifications."""
        return self._address is not None

    def notify(self, **fields: object) -> bool:
        """Send ``NAME=value`` lines. Return whether they have arrived; a failure is logged once."""
        if self._address is None:
            return False
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(_SEND_TIMEOUT)
                sender.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                event(logging.WARNING, "systemd could not be notified", error=error)
            self._has_failed = True
            return False
        self._has_failed = False
        return True


def _address(name: str) -> bytes | None:
    """Return the address for a path, or for ``@`` and an abstract name; None for a socket that is not a Unix one."""
    if name[:1] not in ("/", "@") or len(name) < 2:
        return None
    return os.fsencode("\0" + name[1:] if name[0] == "@" else name)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    own, text = str(os.getpid()), environment.get("WATCHDOG_USEC", "")
    is_meant = environment.get("WATCHDOG_PID", own) == own
    return int(text) / 1e6 or None if is_meant and re.fullmatch("[0-9]{1,20}", text) else None
