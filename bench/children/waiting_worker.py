"""A worker that is woken as usual, or one that only polls. Arguments: "woken" or "polling", URL."""

import sys

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue._store.polling import PollingWakeups

queue = TaskQueue(sys.argv[2])
if sys.argv[1] == "polling":
    queue.store.wakeups = PollingWakeups()  # it never says that it waits, so nobody notifies it
Worker(queue).run(lambda payload: {"status": "OK", "number": payload["number"]})
