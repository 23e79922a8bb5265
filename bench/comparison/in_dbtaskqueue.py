"""The two-hour task in dbtaskqueue. It stores a checkpoint, and continues there."""

from work import HOUR, work

from dbtaskqueue import ReleaseTask, TaskQueue, current_task

queue = TaskQueue()


@queue.task(name="two_hours")
def two_hours() -> str:
    """Report progress, store a checkpoint, and check whether the worker drains."""
    task = current_task()

    def tell(second: int) -> None:
        task.progress(second, 2 * HOUR)
        task.checkpoint(second)
        if task.should_stop:
            raise ReleaseTask

    return work(tell, start=task.saved or 0)
