"""A worker that is woken by notifications as usual, or one that only polls. Arguments: "woken" or "polling", URL."""

import sys

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue._store.polling import PollingWakeups

queue = TaskQueue(sys.argv[2])
if sys.argv[1] == "polling":
    queue.store.wakeups = PollingWakeups()  # it never registers as waiting, so producers do not notify it
Worker(queue).run(lambda payload: {"status": "OK", "number": payload["number"]})
