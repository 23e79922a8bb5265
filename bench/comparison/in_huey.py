"""The two-hour task in huey. AGAIN=1 enqueues tasks again that a signal has interrupted."""

import os

from huey import SqliteHuey, signals
from work import say, work

huey = SqliteHuey(filename="huey.db")


@huey.task(retries=1)
def two_hours():
    """Report progress in huey's key-value store."""
    return work(lambda second: huey.put("second", second))


if "AGAIN" in os.environ:

    @huey.signal(signals.SIGNAL_INTERRUPTED)
    def again(signal, task):
        """Enqueue an interrupted task again."""
        say("interrupted")
        huey.enqueue(task)
