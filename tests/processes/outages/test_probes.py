"""The probes of a worker whose server is away, or does not answer."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from helpers import until
from servers.proxy import CuttingProxy
from servers.requirements import must_be_ours
from servers.wire import MariaDBConversation, PostgreSQLConversation

from dbtaskqueue import TaskQueue

CONVERSATION = {"postgresql": PostgreSQLConversation, "mariadb": MariaDBConversation}


def status(url: str) -> str:
    """Return the status and the text of an answer."""
    try:
        with urlopen(url, timeout=30) as answer:
            return f"{answer.status} {answer.read().decode().strip()}"
    except OSError as error:
        return str(getattr(error, "status", error))


def test_a_worker_without_its_database_is_alive_but_not_ready(
    engine: str, url: str, queue: TaskQueue, start: Callable[[list[str]], subprocess.Popen[str]], tmp_path: Path
) -> None:
    must_be_ours(engine)
    with CuttingProxy(urlsplit(url).port or 0, CONVERSATION[engine]) as proxy:
        command = [sys.executable, "-m", "dbtaskqueue", "--url", proxy.url(url), "worker", "json:dumps"]
        process = start([*command, "--executor", "thread", "--http", "127.0.0.1:0"])
        assert process.stderr is not None
        line = next(line for line in process.stderr if "probes are answered" in line)
        [live] = re.findall(r"url=(\S+)", line)
        ready = live.replace("live", "ready")
        until(lambda: status(ready) == "200 working")
        proxy.refuse()
        proxy.cut()
        until(lambda: status(ready) == "503", what="a worker that is not ready")
        assert status(live) == "200 database unavailable"
        proxy.accept_again()
        until(lambda: status(ready) == "200 working", what="a worker that is ready again")
        task = queue.enqueue({})
        until(lambda: task.refresh().state == "done")
