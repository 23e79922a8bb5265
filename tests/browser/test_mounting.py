"""Mounting: the pages work below a path of another program. All hosts are in tests/dashboard/test_mounts.py."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from browser.chromium import Visitor
from browser.places import button, confirm, row
from browser.site import Site
from helpers import ended, python_path
from playwright.sync_api import expect

HOST = """
import socket, sys
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard import Dashboard, User

dashboard = Dashboard(TaskQueue(sys.argv[1]), auth=lambda request: User("alice", "admin"))
app = Starlette(routes=[Mount("/ops/tasks", dashboard)])
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[listener])
"""


@pytest.fixture
def mounted(empty_site: Site) -> Iterator[str]:
    """The address of the dashboard below a path of a Starlette application."""
    command = [sys.executable, "-c", HOST, empty_site.url]
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": python_path(), "PATH": "/usr/bin:/bin"}
        )
        stack.enter_context(ended(process))
        assert process.stdout
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/ops/tasks"


def test_86_a_dashboard_below_a_path(empty_site: Site, mounted: str, visitor: Visitor) -> None:
    """86: links, live updates, dialogs and forms stay below the path."""
    task = empty_site.lane("mail").enqueue(1)
    page = visitor.page()
    page.goto(f"{mounted}/")
    expect(row(page, "Queues", "mail")).to_be_visible()
    empty_site.lane("later").enqueue(1)
    expect(row(page, "Queues", "later")).to_be_visible()
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Tasks").click()
    page.wait_for_url(re.compile("/ops/tasks/tasks"))
    page.goto(f"{mounted}/tasks/{task.id}")
    button(page, "Cancel").click()
    confirm(page, f"Cancel task {task.id}?")
    expect(page.get_by_role("status")).not_to_be_empty()
    assert task.refresh().state == "cancelled"
    assert page.url.startswith(mounted)
