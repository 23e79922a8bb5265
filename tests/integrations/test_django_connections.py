"""``enqueue(connection=…)`` with a connection of Django: in ``atomic()``, with savepoints, on three engines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from helpers import run_python
from servers.requirements import library

from dbtaskqueue import TaskQueue

library("django")

PROGRAM = """
import json, sys
import pymysql
pymysql.install_as_MySQLdb()
import django
from django.conf import settings
from django.db import connection, connections, transaction
from dbtaskqueue import ConfigurationError, TaskQueue

settings.configure(DATABASES=json.loads(sys.argv[2]), USE_TZ=True)
django.setup()
queue = TaskQueue(sys.argv[1], create=False)


def refused(given):
    try:
        queue.enqueue("refused", connection=given)
    except ConfigurationError as error:
        return str(error)
    except transaction.TransactionManagementError as error:
        return f"Django: {error}"


print(refused(connection))
with transaction.atomic():
    queue.enqueue("committed", connection=connections["default"])
    task = queue.enqueue("by the proxy", connection=connection)
    assert queue.get(task.id, connection=connection).payload == "by the proxy"
    try:
        with transaction.atomic():
            queue.enqueue("in an undone savepoint", connection=connection)
            raise KeyError
    except KeyError:
        pass
try:
    with transaction.atomic():
        queue.enqueue("rolled back", connection=connection)
        raise KeyError
except KeyError:
    pass
with transaction.atomic():
    transaction.set_rollback(True)
    print(refused(connection))
transaction.set_autocommit(False)
queue.enqueue("without autocommit", connection=connection)
transaction.commit()
transaction.set_autocommit(True)
with transaction.atomic(using="other"):
    print(refused(connections["other"]))
connection.close()
with transaction.atomic():
    queue.enqueue("connected again", connection=connection)
print([task.payload for task in queue.tasks()])
"""


def databases(url: str, directory: Path) -> dict[str, dict[str, Any]]:
    """Return Django's settings for the queue's database, and for another one."""
    parts = urlsplit(url)
    other = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{directory}/other.sqlite"}
    if parts.scheme == "sqlite":
        name = url.removeprefix("sqlite:///")
        options = {"transaction_mode": "IMMEDIATE"}
        return {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}, "other": other}
    server = {"NAME": parts.path[1:], "USER": parts.username, "HOST": parts.hostname, "PORT": parts.port}
    engine = {"postgresql": "postgresql", "mariadb": "mysql"}[parts.scheme]
    options = {"charset": "utf8mb4"} if engine == "mysql" else {}
    return {"default": {"ENGINE": f"django.db.backends.{engine}", **server, "OPTIONS": options}, "other": other}


def test_a_connection_of_django(queue: TaskQueue, engine: str, tmp_path: Path) -> None:
    lines = run_python(PROGRAM, queue.url, json.dumps(databases(queue.url, tmp_path))).splitlines()
    assert "'default' is in autocommit; enqueue inside transaction.atomic(using='default')" in lines[0]
    assert lines[1].startswith("Django: An error occurred in the current transaction")
    assert ("different database" if engine == "sqlite" else "is needed here") in lines[2]
    assert lines[3] == str(["connected again", "without autocommit", "by the proxy", "committed"])
    assert queue.stats().pending == 4
