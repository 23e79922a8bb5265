"""A notification socket like systemd's, for tests of services."""

from __future__ import annotations

import contextlib
import socket
import struct


class Systemd:
    """Receive the notifications of services, with the pids of their senders."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.received: list[tuple[int, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                data, extra, _, _ = self._socket.recvmsg(4096, socket.CMSG_SPACE(12))
                [(_, _, credentials)] = extra
                fields = dict(line.split("=", 1) for line in data.decode().split("\n"))
                self.received.append((struct.unpack("3i", credentials)[0], fields))

    def values(self, name: str) -> list[str]:
        """The values received for this variable so far."""
        self._read()
        return [fields[name] for _, fields in self.received if name in fields]

    def senders(self) -> set[int]:
        """The pids of the processes that have sent something."""
        self._read()
        return {pid for pid, _ in self.received}
