"""A worker of coroutines that sleep, until nothing is due. Arguments: URL, how many at once.

Prints how many seconds it ran.
"""

import asyncio
import json
import sys
import time

from dbtaskqueue import Worker


async def sleep(payload):
    """Wait, as if for an answer from the network."""
    await asyncio.sleep(payload["seconds"])


url, concurrency = sys.argv[1], int(sys.argv[2])
started = time.monotonic()
Worker(url, executor="asyncio", concurrency=concurrency).run(sleep, burst=True)
print(json.dumps({"seconds": time.monotonic() - started}))
