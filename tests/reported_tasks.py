"""A queue whose tasks are reported to Sentry, at the top of a module, where a child process finds it.

Events are written to a file by a transport of the tests, in place of Sentry's.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from dbtaskqueue import AbandonTask, ReleaseTask, RetryPolicy, RetryTask, TaskQueue, current_task
from dbtaskqueue.integrations.sentry import SentryExtension

FILE = "REPORTED_EVENTS"
"""The environment variable that names the file of all events."""


class FileTransport(Transport):
    """Keeps what it gets until it is flushed, and then appends it to the file."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(options)
        self._kept: list[dict[str, Any]] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            if item.type in ("event", "transaction"):
                self._kept.append(json.loads(item.get_bytes()))

    def flush(self, timeout: float, callback: Any = None) -> None:
        kept, self._kept = self._kept, []
        if FILE in os.environ:
            with open(os.environ[FILE], "a", encoding="utf-8") as out:
                out.writelines(json.dumps({"pid": os.getpid(), **event}) + "\n" for event in kept)


def events(kind: str | None = None) -> list[dict[str, Any]]:
    """Return the events of the file: errors, or those of another type."""
    path = Path(os.environ[FILE])
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [event for event in found if event.get("type") == kind]


def start(**options: Any) -> None:
    """Initialize Sentry with the transport of the tests."""
    sentry_sdk.init(
        dsn="http://key@127.0.0.1/1",
        transport=FileTransport,
        traces_sample_rate=1.0,
        default_integrations=False,
        **options,
    )


extension = SentryExtension()
queue = TaskQueue("sqlite:////nonexistent/reported.sqlite", open=False, extensions=[extension])

if os.environ.get(FILE):
    start()  # in children, which import the module


@queue.task(name="act", retry=RetryPolicy(delay=0, max_attempts=2))
def act(what: str) -> Any:
    """Do what the word says."""
    sentry_sdk.add_breadcrumb(message=f"before {what}")
    match what:
        case "fail":
            detail = "local"  # noqa: F841  # stack frames have local variables
            raise LookupError("no good")
        case "abandon":
            raise AbandonTask("enough")
        case "retry":
            raise RetryTask(0)
        case "release" if current_task().meta.get("released") is None:
            raise ReleaseTask(3600)
        case "unstorable":
            return {1, 2}
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "sleep":
            time.sleep(60)
    return what


@queue.task(name="refuse", backoff=lambda error, attempt: None)
def refuse() -> None:
    """Fail, and be abandoned by the backoff."""
    raise PermissionError("refused")


@queue.task(name="act_async", retry=RetryPolicy(delay=0, max_attempts=2))
async def act_async(what: str) -> Any:
    """Do what the word says, as a coroutine."""
    return act(what)
