"""pgqueuer: fill its queue, or drain it as fast as possible. Runs in the environment of the rivals.

Arguments: "fill" and the number of tasks, or "drain" and when to start (``time.monotonic()``); then "asyncpg" or
"asyncpg-pool"; then URL. Its tables are logged, as by default. Its psycopg driver is omitted, since it was six times
slower than these. It stores no results.
"""

import asyncio
import json
import sys
import time

import asyncpg
import uvloop
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver, AsyncpgPoolDriver
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.types import QueueExecutionMode
from pgqueuer.queries import Queries

BATCH = 200
CHUNK = 5_000
what, number, driver, url = sys.argv[1:5]
started: list[float] = []


async def connect():
    """Return the requested driver."""
    if driver == "asyncpg-pool":
        return AsyncpgPoolDriver(await asyncpg.create_pool(url, min_size=2, max_size=3))
    return AsyncpgDriver(await asyncpg.connect(url))


async def fill(tasks):
    """Create pgqueuer's schema and the tasks."""
    queries = Queries(await connect())
    await queries.install()
    for first in range(0, tasks, CHUNK):
        chunk = range(first, min(first + CHUNK, tasks))
        payloads = [json.dumps({"url": f"http://example.com/{number}", "number": number}).encode() for number in chunk]
        await queries.enqueue(["noop"] * len(chunk), payloads, [0] * len(chunk))


async def drain(start):
    """Run all tasks; return when the first one started, when all were stored, and their number."""
    manager = QueueManager(Queries(await connect()))
    count = 0

    @manager.entrypoint("noop")
    async def noop(job):
        nonlocal count
        if not started:
            started.append(time.monotonic())
        count += 1
        return {"status": "OK", "number": json.loads(job.payload)["number"]}

    await asyncio.sleep(max(0.0, start - time.monotonic()))
    await manager.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
    return {"tasks": count, "started": started[0] if started else None, "ended": time.monotonic()}


print(json.dumps(uvloop.run(fill(int(number)) if what == "fill" else drain(float(number)))))
