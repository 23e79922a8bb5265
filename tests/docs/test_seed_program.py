"""examples/download.py fetches a page from a server, and retries a URL that fails."""

from __future__ import annotations

import http.server
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbtaskqueue import RetryPolicy, TaskQueue, Worker

PAGE = b"<html><body>hello</body></html>"
EXAMPLE = Path(__file__).parents[2] / "examples" / "download.py"


class Handler(http.server.BaseHTTPRequestHandler):
    calls = 0

    def do_GET(self) -> None:
        type(self).calls += 1
        broken = self.path == "/flaky" and self.calls <= 2
        self.send_response(503 if broken else 200)
        self.end_headers()
        self.wfile.write(b"" if broken else PAGE)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Handler.calls = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def download():
    spec = importlib.util.spec_from_file_location("download", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.download


def test_a_page_is_fetched_into_a_file(url, server, download, tmp_path):
    queue = TaskQueue(url, queue="http.fetch")
    target = tmp_path / "page.html"
    task = queue.enqueue({"url": f"{server}/", "target": str(target)})
    Worker(url, queue="http.fetch").run(download, burst=True)
    assert task.get_result(timeout=10)["status"] == "OK"
    assert target.read_bytes() == PAGE


def test_a_url_that_fails_is_retried(url, server, download, tmp_path):
    target = tmp_path / "page.html"
    queue = TaskQueue(url, queue="http.fetch", retry=RetryPolicy(delay=0.05))
    task = queue.enqueue({"url": f"{server}/flaky", "target": str(target)})
    Worker(url, queue="http.fetch").run(download, max_tasks=3)
    assert task.refresh().state == "done"
    assert [attempt.outcome for attempt in task.attempts()] == ["failed", "failed", "done"]
    assert "503" in task.attempts()[0].error
    assert target.read_bytes() == PAGE
