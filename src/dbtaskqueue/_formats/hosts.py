"""Names of hosts in requests, and which of them mean this machine. Pure."""

from __future__ import annotations

import ipaddress


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port."""
    text = host.lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def is_loopback(name: str) -> bool:
    """Return whether a name or an address means this machine only."""
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
