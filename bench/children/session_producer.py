"""Enqueue one by one, each task in its own transaction: by the queue, or through a session of SQLAlchemy.

Arguments: the kind of transaction, the database's URL, number of tasks. Prints tasks per second. The kinds:

- "ours": the queue stores the task on its own connection.
- "session": a session stores the task.
- "together": a session stores a row of the application and the task.
- "apart": a session stores a row of the application, then the queue stores the task on its own connection.
"""

import json
import sys
import time
from urllib.parse import parse_qs, urlsplit

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import Session

from dbtaskqueue import TaskQueue

kind, url, total = sys.argv[1], sys.argv[2], int(sys.argv[3])
WARM_UP = 50
INSERT = sqlalchemy.text("INSERT INTO bench_orders VALUES (:number)")

parts = urlsplit(url)
drivers = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
base = url.partition("?")[0].removeprefix(f"{parts.scheme}:")
engine = sqlalchemy.create_engine(f"{drivers[parts.scheme]}:{base}")
queue = TaskQueue(url)

if parts.scheme == "sqlite":
    synchronous = parse_qs(parts.query)["synchronous"][0]

    @event.listens_for(engine, "connect")
    def connect(connection, record):
        """Use the settings of the queue's connections."""
        connection.execute(f"PRAGMA synchronous = {synchronous}")


def payload(number):
    """As in ``databases.py``."""
    return {"url": f"http://example.com/{number}", "number": number}


def one(number):
    """Store one task, and commit."""
    if kind != "ours":
        with Session(engine) as session:
            if kind != "session":
                session.execute(INSERT, {"number": number})
            if kind != "apart":
                queue.enqueue(payload(number), connection=session)
            session.commit()
    if kind in ("ours", "apart"):
        queue.enqueue(payload(number))


with engine.begin() as connection:
    connection.execute(sqlalchemy.text("CREATE TABLE IF NOT EXISTS bench_orders (number INTEGER)"))
for number in range(WARM_UP):
    one(number)
started = time.perf_counter()
for number in range(total):
    one(number)
print(json.dumps(total / (time.perf_counter() - started)))
