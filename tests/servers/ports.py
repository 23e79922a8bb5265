"""Free ports for the tests' servers."""

from __future__ import annotations

import errno
import random
import socket
from collections import deque

LOOPBACK = "127.0.0.1"

BELOW_EPHEMERAL = range(15000, 32000)
"""Outside the kernel's range for outgoing connections. A connection from that range could occupy the port of a server
that is down, and a client that keeps trying a closed port in that range may connect to itself."""

KEPT = 100
"""For how many further ports a claim holds: enough for all servers that a test starts."""

_claims: deque[socket.socket] = deque()


def free_port() -> int:
    """Return a free TCP port of the loopback address that no other test gets, though nothing uses it yet.

    The last server of a cluster takes its ports many seconds after they were chosen. A claim is a bound Unix socket
    without a file, so it ends with this process.
    """
    while True:
        port = random.SystemRandom().choice(BELOW_EPHEMERAL)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0dbtaskqueue-test-port-{port}")
            with socket.socket() as probe:
                probe.bind((LOOPBACK, port))
        except OSError as error:
            claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        _claims.append(claim)
        if len(_claims) > KEPT:
            _claims.popleft().close()
        return port
