"""A loop that an expert would write by hand with PyMySQL: it ends and claims 100 tasks in one transaction.

It has no heartbeat, rescue, retries, fencing or limits: the comparison shows what these cost.
Arguments: "fill" and number of tasks, or "drain" and when to start (``time.monotonic()``); then URL.
"""

import json
import sys
import time
from urllib.parse import urlsplit

import pymysql

BATCH = 100
SCHEMA = """
CREATE TABLE task (
    id BIGINT AUTO_INCREMENT PRIMARY KEY, queue VARCHAR(100) NOT NULL, state VARCHAR(10) NOT NULL,
    priority INT NOT NULL, due DATETIME(6) NOT NULL, attempt INT NOT NULL DEFAULT 0, payload TEXT NOT NULL,
    result TEXT, finished_at DATETIME(6), KEY claimable (queue, state, priority, due, id))
"""
INSERT = "INSERT INTO task (queue, state, priority, due, payload) VALUES ('default', 'pending', 0, now(6), %s)"
FIND = """
SELECT id, payload FROM task WHERE queue = 'default' AND state = 'pending' AND due <= now(6)
 ORDER BY priority, due, id LIMIT 100 FOR UPDATE SKIP LOCKED
"""
CLAIM = "UPDATE task SET state = 'running', attempt = attempt + 1 WHERE id IN %s"
END = "UPDATE task SET state = 'done', finished_at = now(6), result = CASE id {cases} END WHERE id IN %s"


def connect(url: str) -> pymysql.connections.Connection:
    """Connect, in autocommit."""
    parts = urlsplit(url)
    return pymysql.connect(
        host=parts.hostname, port=parts.port, user=parts.username, database=parts.path[1:], autocommit=True,
        init_command="SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    )  # fmt: skip


def fill(url: str, tasks: int) -> None:
    """Create the table and its tasks."""
    with connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)
        payloads = [(json.dumps({"url": f"http://example.com/{number}", "number": number}),) for number in range(tasks)]
        for first in range(0, tasks, 5_000):
            cursor.executemany(INSERT, payloads[first : first + 5_000])


def callback(payload):
    """Return the same as the callback of our worker."""
    return {"status": "OK", "number": payload["number"]}


def drain(url: str, start: float) -> dict[str, object]:
    """Run all tasks; return when the first one started, when all were stored, and their number."""
    connection = connect(url)
    cursor = connection.cursor()
    time.sleep(max(0.0, start - time.monotonic()))
    ended: list[tuple[int, str]] = []
    count = 0
    started = time.monotonic()
    while True:
        connection.begin()
        if ended:
            values = [value for pair in ended for value in pair]
            cursor.execute(END.format(cases="WHEN %s THEN %s " * len(ended)), (*values, [id for id, _ in ended]))
        cursor.execute(FIND)
        claimed = cursor.fetchall()
        if claimed:
            cursor.execute(CLAIM, ([number for number, _ in claimed],))
        connection.commit()
        count += len(ended)
        if not claimed:
            return {"tasks": count, "started": started, "ended": time.monotonic()}
        ended = [(number, json.dumps(callback(json.loads(payload)))) for number, payload in claimed]


if __name__ == "__main__":
    what, number, address = sys.argv[1:4]
    print(json.dumps(fill(address, int(number)) if what == "fill" else drain(address, float(number))))
