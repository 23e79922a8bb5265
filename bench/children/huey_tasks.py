"""The module that huey's consumer imports. Its one task prints how many tasks ran per second.

It is SqliteHuey with its defaults (one thread, results stored, WAL, 8 MB of cache), except for ``synchronous``. Its
option ``fsync`` allows only OFF and FULL, so the level is set where it opens a connection.
Environment: BENCH_FILE, BENCH_SYNCHRONOUS, BENCH_TASKS.
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
    """huey's own storage, with the durability from the environment."""

    def _create_connection(self):
        connection = super()._create_connection()
        connection.execute(f"PRAGMA synchronous = {level}")
        assert connection.execute("PRAGMA synchronous").fetchone()[0] == level
        return connection


class Huey(SqliteHuey):
    """A huey with that storage."""

    storage_class = Storage


huey = Huey("bench", filename=os.environ["BENCH_FILE"])
times: list[float] = []


@huey.task()
def noop(payload):
    """Do nothing, like our callback.

    The start of one more task than expected shows that all earlier results are stored.
    """
    times.append(time.perf_counter())
    if len(times) == expected + 1:
        print(json.dumps(expected / (times[-1] - times[0])), flush=True)
    return {"status": "OK", "number": payload["number"]}
