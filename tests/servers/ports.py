"""Free ports for the tests' servers."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

BELOW_EPHEMERAL = range(15000, 32000)
"""Outside the kernel's range for outgoing connections. A connection from that range could occupy the port of a server
that is down, and a client that keeps trying a closed port in that range may connect to itself."""


def free_port() -> int:
    """Return a free TCP port of the loopback address."""
    while True:
        port = random.SystemRandom().choice(BELOW_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
