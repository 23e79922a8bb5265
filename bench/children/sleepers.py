"""A worker that runs sleeping coroutines until no task is due. Arguments: URL, concurrency.

Prints the seconds that it ran.
"""

import asyncio
import json
import sys
import time

from dbtaskqueue import Worker


async def sleep(payload):
    """Wait, as for an answer from the network."""
    await asyncio.sleep(payload["seconds"])


url, concurrency = sys.argv[1], int(sys.argv[2])
started = time.monotonic()
Worker(url, executor="asyncio", concurrency=concurrency).run(sleep, burst=True)
print(json.dumps({"seconds": time.monotonic() - started}))
