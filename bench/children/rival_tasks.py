"""What the rivals' worker processes import: a task that notes when it started, in a file that all of them share.

Told by environment: BENCH_NOTES, the file, 8 bytes for each task; for huey also what ``huey_tasks.py`` is told.
"""

import os
import struct
import time

notes = os.open(os.environ["BENCH_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def noop(payload):
    """The same as our callback."""
    os.write(notes, struct.pack("d", time.monotonic()))
    return {"status": "OK", "number": payload["number"]}


if "BENCH_FILE" in os.environ:
    from huey_tasks import Huey

    huey = Huey("bench", filename=os.environ["BENCH_FILE"])
    noop_of_huey = huey.task()(noop)
