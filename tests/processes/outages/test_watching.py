"""dbtaskqueue watch while its server is unavailable or silent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cli.running import Cli, Terminal
from helpers import until
from servers.proxy import CuttingProxy
from servers.requirements import must_be_ours
from servers.wire import MariaDBConversation, PostgreSQLConversation

from dbtaskqueue import TaskQueue

CONVERSATION = {"postgresql": PostgreSQLConversation, "mariadb": MariaDBConversation}


@pytest.fixture
def proxy(engine: str, url: str, queue: TaskQueue) -> Iterator[CuttingProxy]:
    """A proxy in front of the server of ``queue``."""
    must_be_ours(engine)
    queue.enqueue(1)
    with CuttingProxy(urlsplit(url).port or 0, CONVERSATION[engine]) as proxy:
        yield proxy
        proxy.thaw()


def await_line(terminal: Terminal, pattern: str) -> None:
    until(lambda: any(re.search(pattern, line) for line in terminal.frame), what=f"{pattern!r} on the screen")


def test_a_server_that_is_unavailable_for_a_while(
    proxy: CuttingProxy, queue: TaskQueue, url: str, tmp_path: Path
) -> None:
    with Cli(proxy.url(url), tmp_path).terminal("watch", "--interval", "0.2") as terminal:
        await_line(terminal, "^default +1 ")
        proxy.refuse()
        proxy.cut()
        await_line(terminal, r"^database unavailable for \d+ s, retrying:")
        await_line(terminal, "^default +1 ")
        queue.enqueue(2)
        proxy.accept_again()
        await_line(terminal, "^default +2 ")
        assert not any("away for" in line for line in terminal.frame)
        terminal.press("q")
        assert terminal.leaves() == 0
        assert terminal.is_as_before


def test_watch_can_be_left_while_the_server_is_silent(proxy: CuttingProxy, url: str, tmp_path: Path) -> None:
    with Cli(proxy.url(url), tmp_path).terminal("watch", "--interval", "0.2") as terminal:
        await_line(terminal, "^default +1 ")
        proxy.freeze()
        await_line(terminal, r"^the database has not answered for \d+ s$")
        await_line(terminal, "^default +1 ")
        terminal.press("q")
        assert terminal.leaves() == 0
        assert terminal.is_as_before
