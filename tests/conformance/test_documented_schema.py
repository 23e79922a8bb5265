"""docs/reference/schema.md has every table and every column of a new database, and no others."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from engines import execute

from dbtaskqueue import TaskQueue

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "schema.md"
OF_SERVERS = {("dbtaskqueue_schema", "identity")}
ONLY_ON = {
    "sqlite": {("dbtaskqueue_pruned", "highest")},
    "postgresql": {("dbtaskqueue_waiter", column) for column in ("queue", "channel", "good_until")},
    "mariadb": {("dbtaskqueue_edge", "open_parent")}
    | {("dbtaskqueue_task", column) for column in ("waiting", "blocked_in", "holder", "ended", "open_key")},
}
COLUMNS = {
    "sqlite": "SELECT t.name, c.name FROM sqlite_master AS t, pragma_table_xinfo(t.name) AS c WHERE t.type = 'table'",
    "postgresql": "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s",
    "mariadb": "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE()",
}


def documented() -> set[tuple[str, str]]:
    found = set()
    for section in PAGE.read_text().split("\n## ")[1:]:
        table, _, text = section.partition("\n")
        for cell in re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE):
            found |= {(table, column) for column in re.findall(r"`(\w+)`", cell)}
        for sentence in re.findall(r"^MariaDB has .*$", text, re.MULTILINE):
            found |= {(table, column) for column in re.findall(r"`(\w+)`", sentence)}
    return found


def test_every_column_is_documented(url: str) -> None:
    engine = url.partition(":")[0]
    TaskQueue(url).close()
    values = parse_qs(urlsplit(url).query).get("schema", []) if engine == "postgresql" else []
    columns = {(str(table), str(column)) for table, column in execute(url, COLUMNS[engine], *values)}
    elsewhere = set().union(*(columns for name, columns in ONLY_ON.items() if name != engine))
    if engine == "sqlite":
        elsewhere |= OF_SERVERS
    assert {pair for pair in columns if pair[0].startswith("dbtaskqueue_")} == documented() - elsewhere


@pytest.mark.one_engine("the page alone decides")
def test_the_page_names_tables() -> None:
    assert len({table for table, _ in documented()}) >= 9
