"""What huey's consumer imports: one task, which tells how many a second were done.

SqliteHuey at its defaults (one thread, results stored, WAL, 8 MB of cache) but for ``synchronous``: its
option ``fsync`` knows OFF and FULL, so the level is set where it opens a connection.
Told by environment: BENCH_FILE, BENCH_SYNCHRONOUS, BENCH_TASKS.
"""

import json
import os
import time

from huey import SqliteHuey
from huey.storage import SqliteStorage

LEVELS = {"OFF": 0, "NORMAL": 1, "FULL": 2}
level = LEVELS[os.environ["BENCH_SYNCHRONOUS"]]
expected = int(os.environ["BENCH_TASKS"])


class Storage(SqliteStorage):
    """huey's own storage, told how durable to be."""

    def _create_connection(self):
        connection = super()._create_connection()
        connection.execute(f"PRAGMA synchronous = {level}")
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == level
        return connection


class Huey(SqliteHuey):
    """huey with that storage."""

    storage_class = Storage


huey = Huey("bench", filename=os.environ["BENCH_FILE"])
times: list[float] = []


@huey.task()
def noop(payload):
    """The same as our callback; when one more than expected starts, all results before it are stored."""
    times.append(time.perf_counter())
    if len(times) == expected + 1:
        print(json.dumps(expected / (times[-1] - times[0])), flush=True)
    return {"status": "OK", "number": payload["number"]}
