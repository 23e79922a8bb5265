"""What the dashboard tells monitoring: metrics, and whether the queues are healthy."""

from __future__ import annotations

import sys

import pytest
from dashboard.clients import mounted
from helpers import until
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from dbtaskqueue import TaskQueue


def test_metrics_in_both_formats(queue: TaskQueue) -> None:
    queue.enqueue("x")
    with mounted(queue, "look") as client:
        text = client.get("/metrics")
        assert (text.status_code, text.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
        assert 'dbtaskqueue_tasks{queue="default",state="pending"} 1.0' in text.text
        other = client.get("/metrics", headers={"accept": "application/openmetrics-text;version=1.0.0"})
        assert other.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert list(text_string_to_metric_families(other.text))


def test_metrics_and_the_health_of_queues_need_a_user(queue: TaskQueue) -> None:
    with mounted(queue, None) as client:
        for path in ("/metrics", "/health/queues"):
            refused = client.get(path, headers={"accept": "application/json"})
            assert (refused.status_code, "dbtaskqueue_" in refused.text) == (401, False), path


def test_the_health_of_queues(queue: TaskQueue) -> None:
    with mounted(queue, "look") as client:
        assert client.get("/health/queues").json() == {
            "healthy": False,
            "problems": ["0 live workers, at least 1 required"],
        }
        assert client.get("/health/queues").status_code == 503
        healthy = client.get("/health/queues?min_workers=0&max_wait=15m")
        assert (healthy.status_code, healthy.json()) == (200, {"healthy": True, "problems": []})
        queue.enqueue("x")
        found = until(
            lambda: client.get("/health/queues?min_workers=0&max_wait=0s").json()["problems"], what="it waits"
        )
        assert found[0].startswith("queue default: a due task has waited")


def test_without_prometheus_client_the_dashboard_says_what_to_install(
    queue: TaskQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("dbtaskqueue.metrics")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with mounted(queue, "look") as client:
        refused = client.get("/metrics")
        assert (refused.status_code, "dbtaskqueue[metrics]" in refused.text) == (501, True)
