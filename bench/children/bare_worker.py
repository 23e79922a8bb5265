"""A loop that an expert would write by hand for SQLite: it claims and ends 20 tasks in one transaction.

It has no heartbeat, rescue, retries, fencing or limits: the comparison shows what these cost.
Arguments: "fill" or the value of synchronous, file, number of tasks.
"""

import json
import sqlite3
import sys
import time

SCHEMA = """
CREATE TABLE IF NOT EXISTS task (
    id INTEGER PRIMARY KEY, queue TEXT NOT NULL, state TEXT NOT NULL, priority INTEGER NOT NULL, due REAL NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0, payload TEXT NOT NULL, result TEXT, finished_at REAL);
CREATE INDEX IF NOT EXISTS claimable ON task (queue, priority DESC, due, id) WHERE state = 'pending';
"""
INSERT = "INSERT INTO task (queue, state, priority, due, payload) VALUES ('default', 'pending', 0, ?, ?)"
CLAIM = """
UPDATE task SET state = 'running', attempt = attempt + 1
 WHERE id IN (SELECT id FROM task WHERE queue = 'default' AND state = 'pending' AND due <= ?
               ORDER BY priority DESC, due, id LIMIT 20)
RETURNING id, payload
"""
END = "UPDATE task SET state = 'done', result = ?, finished_at = ? WHERE id = ?"


def connect(path: str, synchronous: str) -> sqlite3.Connection:
    """Open a connection in WAL mode that starts no transactions by itself."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


def fill(path: str, tasks: int) -> None:
    """Create the file and its tasks."""
    connection = connect(path, "NORMAL")
    connection.executescript(SCHEMA)
    rows = (
        (time.time(), json.dumps({"url": f"http://example.com/{number}", "number": number})) for number in range(tasks)
    )
    connection.execute("BEGIN")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")
    connection.close()


def callback(payload):
    """Return the same as the callback of our worker."""
    return {"status": "OK", "number": payload["number"]}


def work(path: str, synchronous: str) -> float:
    """Run all tasks; return tasks per second."""
    connection = connect(path, synchronous)
    ended: list[tuple[str, float, int]] = []
    count = 0
    started = time.perf_counter()
    while True:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(END, ended)
        claimed = connection.execute(CLAIM, (time.time(),)).fetchall()
        connection.execute("COMMIT")
        count += len(ended)
        if not claimed:
            return count / (time.perf_counter() - started)
        ended = [(json.dumps(callback(json.loads(payload))), time.time(), number) for number, payload in claimed]


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        print(json.dumps(fill(sys.argv[2], int(sys.argv[3]))))
    else:
        print(json.dumps(work(sys.argv[2], sys.argv[1])))
