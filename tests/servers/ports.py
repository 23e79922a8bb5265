"""A port for a server of the tests."""

from __future__ import annotations

import random
import socket

LOOPBACK = "127.0.0.1"

BELOW_EPHEMERAL = range(15000, 32000)
"""Not where the kernel takes the ports of outgoing connections from: one of those could sit on the port of a
server that is down just now, and a client that keeps trying a dead port in that range may connect to itself."""


def free_port() -> int:
    """A TCP port of the loopback address on which nobody listens."""
    while True:
        port = random.SystemRandom().choice(BELOW_EPHEMERAL)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port
