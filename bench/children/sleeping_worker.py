"""A worker whose tasks run until it drains. Arguments: URL, concurrency."""

import sys
import threading

from dbtaskqueue import Worker

never = threading.Event()
Worker(sys.argv[1], concurrency=int(sys.argv[2]), drain_timeout=0.1).run(lambda payload: never.wait())
