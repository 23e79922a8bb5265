"""Messages between processes: descriptors with high numbers, and a send that fails."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from dbtaskqueue._executors.process.channel import Channel

HIGH = 1100
"""``select()`` takes no descriptor above 1023."""


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Return two connected sockets whose descriptors have high numbers."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < HIGH + 100:
        pytest.skip(f"the hard limit of open files is {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], HIGH + 100), before[1]))
    ends = []
    for end in socket.socketpair():
        with end:
            ends.append(Channel(socket.socket(fileno=fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, HIGH))))
    yield ends[0], ends[1]
    for channel in ends:
        channel.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_descriptors_with_high_numbers(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    assert min(one.fileno(), other.fileno()) >= HIGH
    assert other.next(0.01) is None
    with open(os.devnull, "rb") as file:
        one.send({"number": 1}, [file.fileno()])
    one.deliver({"number": 2})
    assert [other.next(), other.next()] == [{"number": 1}, {"number": 2}]
    [fd] = other.take_fds(1)
    os.close(fd)


def test_a_message_with_descriptors_that_could_not_be_sent_is_not_sent_later(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    with pytest.raises(OSError, match="Bad file descriptor"):
        one.send({"number": 1}, [HIGH + 50])
    one.deliver({"number": 2})
    assert other.next() == {"number": 2}


def test_a_message_with_missing_descriptors_is_an_error(pair: tuple[Channel, Channel]) -> None:
    one, other = pair
    with open(os.devnull, "rb") as file:
        one.send({"fds": 2}, [file.fileno()])
    assert other.next() == {"fds": 2}
    with pytest.raises(OSError, match="Too many open files") as raised:
        other.take_fds(2)
    assert raised.value.errno == errno.EMFILE
