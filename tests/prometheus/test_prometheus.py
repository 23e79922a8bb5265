"""A real Prometheus scrapes ``dbtaskqueue metrics --listen``, and uses the rules and the dashboard of ``examples``."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.running import Cli
from helpers import until
from servers.prometheus import Prometheus, program

from dbtaskqueue import RetryPolicy, TaskQueue, Worker
from dbtaskqueue.metrics.census import Census, Counting
from dbtaskqueue.metrics.families import Families

EXAMPLES = Path(__file__).parents[2] / "examples"
RULES = EXAMPLES / "prometheus" / "rules.yaml"
RULES_TEST = RULES.with_name("rules_test.yaml")
DASHBOARD = EXAMPLES / "grafana" / "dbtaskqueue.json"
HOSTILE = 'a"b\\c{d="e"}\n# EOF\n\x00ü\u202e'


@pytest.fixture
def busy(queue: TaskQueue, tmp_path: Path) -> Iterator[TaskQueue]:
    """A queue with ended attempts, a schedule that has missed ticks, and a running task with a hostile name."""
    queue.schedule("nightly", {"page": 1}, every=3600)
    queue.enqueue_many([1, 0, 2], retry=RetryPolicy(max_attempts=1))
    Worker(queue).run(lambda number: 1 // number, burst=True)
    task = queue.enqueue("x")
    [held] = queue.fetch()
    held.start()
    with contextlib.closing(sqlite3.connect(tmp_path / "taskqueue.sqlite")) as connection, connection:
        connection.execute("UPDATE dbtaskqueue_task SET function = ? WHERE id = ?", (HOSTILE, task.id))
        connection.execute("UPDATE dbtaskqueue_schedule SET last_at = 5000000, missed = 3")
    yield queue
    held.release()


@pytest.fixture
def prometheus(busy: TaskQueue, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that has scraped the metrics of ``busy`` at least twice."""
    program("prometheus")
    with Cli(busy.url, tmp_path).started("metrics", "--listen", "127.0.0.1:0") as process:
        assert process.stdout is not None
        found = re.fullmatch(rb"metrics: http://(.*)/metrics\n", process.stdout.readline())
        assert found
        with Prometheus(found[1].decode(), [RULES]) as server:
            until(lambda: server.query("count_over_time(dbtaskqueue_up[1m]) >= 2"), what="two scrapes")
            yield server


def test_everything_is_scraped(prometheus: Prometheus, busy: TaskQueue) -> None:
    [target] = prometheus.ask("targets")["activeTargets"]
    assert (target["health"], target["lastError"]) == ("up", "")
    assert prometheus.query("dbtaskqueue_up")[0][1] == 1
    assert prometheus.query('dbtaskqueue_tasks{state="done"}')[0][1] == 2
    assert prometheus.query('sum(dbtaskqueue_attempts_total{outcome="abandoned"})')[0][1] == 1
    assert prometheus.query("sum(dbtaskqueue_attempt_duration_seconds_count)")[0][1] == 3
    assert prometheus.query("histogram_quantile(0.9, sum by (le) (dbtaskqueue_wait_seconds_bucket))")[0][1] > 0
    [(labels, running)] = prometheus.query("dbtaskqueue_running_tasks")
    assert running == 1
    assert labels["function"] == 'a"b\\c{d="e"}\\n# EOF\\n\\x00ü\\u202e'
    scraped = prometheus.query("scrape_samples_scraped")[0][1]
    families = Families().of(Counting(busy.store)())
    assert scraped == sum(len(family.samples) for family in families)


def test_the_rules_are_evaluated(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, str]]:
        [group] = prometheus.ask("rules")["groups"]
        found: list[dict[str, str]] = group["rules"]
        return found if all(rule["health"] != "unknown" for rule in found) else []

    found = until(rules, what="every rule is evaluated")
    assert {rule["name"]: rule.get("lastError") for rule in found} == dict.fromkeys(alerts())


# -- rules -----------------------------------------------------------------------------------------


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


def test_each_rule_fires_when_it_should() -> None:
    line = [program("promtool"), "test", "rules", RULES_TEST.name]
    done = subprocess.run(line, cwd=RULES_TEST.parent, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_has_tests_that_it_fires_and_that_it_does_not() -> None:
    text = RULES_TEST.read_text()
    silent = set(re.findall(r"alertname: (\w+), exp_alerts: \[\]", text))
    firing = set(re.findall(r"alertname: (\w+)\n *exp_alerts:\n", text))
    assert silent == firing == set(alerts())
    assert len(alerts()) > 10


# -- the dashboard ---------------------------------------------------------------------------------


def expressions() -> list[str]:
    """Return the queries of the dashboard, for all jobs, queues and functions."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [annotation["expr"] for annotation in dashboard["annotations"]["list"]]
    return [
        re.sub(r"\$(job|instance|queue|function)\b", ".*", each.replace("$__rate_interval", "1m")) for each in found
    ]


def test_every_query_of_the_dashboard_finds_something(prometheus: Prometheus) -> None:
    assert len(expressions()) > 20
    for expression in expressions():
        assert "$" not in expression
        until(lambda expression=expression: prometheus.query(expression), what=expression)


def test_every_variable_of_the_dashboard_has_values(prometheus: Prometheus) -> None:
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["definition"])
        assert found
        selector = re.sub(r"\$\w+", ".*", found[1])
        assert {labels[found[2]] for labels, _ in prometheus.query(selector)} - {""}, variable["name"]


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _ in cells)
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)


def metric_names() -> set[str]:
    """Return the names of all samples, as those of a histogram's buckets."""
    suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "info": ["_info"]}
    families = Families().of(Census([], {}, {}, Counter(), 0, []))
    return {family.name + suffix for family in families for suffix in suffixes.get(family.type, [""])}


@pytest.mark.parametrize("file", [RULES, RULES_TEST, DASHBOARD], ids=lambda path: path.name)
def test_every_metric_that_is_named_exists(file: Path) -> None:
    named = set(re.findall(r"\bdbtaskqueue_\w+", file.read_text()))
    assert named
    assert named <= metric_names()
