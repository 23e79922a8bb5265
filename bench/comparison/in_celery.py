"""The two-hour task in Celery. Its visibility timeout of an hour is scaled down to 20 seconds, too.

LATE=1 acknowledges a task at its end, LOST=1 returns the tasks of a lost process to the queue, and SOFT=8 allows 8 s
for a soft shutdown.
"""

import os

from celery import Celery
from work import HOUR, work

url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
app = Celery("in_celery", broker=url, backend=url)
app.conf.broker_transport_options = {"visibility_timeout": HOUR, "unacked_restore_throttle": 1}
app.conf.task_acks_late = "LATE" in os.environ
app.conf.task_reject_on_worker_lost = "LOST" in os.environ
app.conf.worker_soft_shutdown_timeout = float(os.environ.get("SOFT", "0"))


@app.task(bind=True)
def two_hours(self):
    """Report progress as the task's state."""
    return work(lambda second: self.update_state(state="PROGRESS", meta={"second": second}))
