"""A worker whose tasks return when they started, by ``time.monotonic()``, the same clock in every process.

Argument: URL.
"""

import sys
import time

from dbtaskqueue import Worker

Worker(sys.argv[1]).run(lambda payload: {"started": time.monotonic()})
