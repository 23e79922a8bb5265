"""Too many wrong secrets from one address."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

MOST = 10
"""Wrong secrets of one address within ``WITHIN`` seconds."""
WITHIN = 60.0
_ADDRESSES = 10_000


class Throttle:
    """Counts wrong secrets by address."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def is_full(self, address: str) -> bool:
        """Return whether an address has to wait."""
        with self._lock:
            times = self._failures.get(_network(address))
            return times is not None and len(times) == MOST and self._now() - times[0] < WITHIN

    def note(self, address: str) -> None:
        """Count a wrong secret."""
        with self._lock:
            network = _network(address)
            self._failures.setdefault(network, deque(maxlen=MOST)).append(self._now())
            self._failures.move_to_end(network)
            if len(self._failures) > _ADDRESSES:
                self._failures.popitem(last=False)


def _network(address: str) -> str:
    """Return an address, or the network of an IPv6 address: its owner has all addresses of it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))
