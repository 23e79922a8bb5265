"""A worker whose results tell when each task started: ``time.monotonic()`` is the same clock in every process.

Argument: URL.
"""

import sys
import time

from dbtaskqueue import Worker

Worker(sys.argv[1]).run(lambda payload: {"started": time.monotonic()})
