"""What a service tells systemd, as sd_notify(3) has it: datagrams to the socket that ``$NOTIFY_SOCKET`` names. Pure.

Where there is no such socket, or nobody reads it, nothing happens: a worker does not depend on who started it.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import Mapping

from .log import event

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
"""What systemd tells a service by; not for the processes of its tasks, which must not speak for it."""
_PATIENCE = 2.0
"""Seconds that systemd may take to make room for a datagram."""


class Notifier:
    """The way to systemd, if there is one. Nothing here raises."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._has_failed = False
        self.watchdog = _watchdog(environment) if self.is_there else None
        """The seconds within which systemd wants to hear that the service lives; None if it does not."""

    @property
    def is_there(self) -> bool:
        """Whether somebody wants to be told."""
        return self._address is not None

    def notify(self, **fields: object) -> bool:
        """Send ``NAME=value`` lines. Returns whether they have arrived; a failure is logged once."""
        if self._address is None:
            return False
        text = "\n".join(f"{name}={value}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as way:
                way.settimeout(_PATIENCE)
                way.sendto(text.encode(), self._address)
        except OSError as error:
            if not self._has_failed:
                event(logging.WARNING, "systemd could not be told", error=error)
            self._has_failed = True
            return False
        self._has_failed = False
        return True


def _address(name: str) -> bytes | None:
    """A path, or ``@`` and an abstract name; anything else (a socket of another family) is nobody's here."""
    if name[:1] not in ("/", "@") or len(name) < 2:
        return None
    return os.fsencode("\0" + name[1:] if name[0] == "@" else name)


def _watchdog(environment: Mapping[str, str]) -> float | None:
    own, text = str(os.getpid()), environment.get("WATCHDOG_USEC", "")
    is_meant = environment.get("WATCHDOG_PID", own) == own
    return int(text) / 1e6 or None if is_meant and re.fullmatch("[0-9]{1,20}", text) else None
