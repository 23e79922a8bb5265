"""The two-hour task in huey; with AGAIN=1 what a signal interrupted is enqueued once more."""

import os

from huey import SqliteHuey, signals
from work import say, work

huey = SqliteHuey(filename="huey.db")


@huey.task(retries=1)
def two_hours():
    """Tells how far it is in huey's key-value store."""
    return work(lambda second: huey.put("second", second))


if "AGAIN" in os.environ:

    @huey.signal(signals.SIGNAL_INTERRUPTED)
    def again(signal, task):
        """What was interrupted is not lost."""
        say("interrupted")
        huey.enqueue(task)
