"""The two-hour task here; it keeps how far it is, and goes on there."""

from work import HOUR, work

from dbtaskqueue import ReleaseTask, TaskQueue, current_task

queue = TaskQueue()


@queue.task(name="two_hours")
def two_hours() -> str:
    """Tells how far it is, keeps it, and looks whether it is to stop."""
    task = current_task()

    def tell(second: int) -> None:
        task.progress(second, 2 * HOUR)
        task.checkpoint(second)
        if task.should_stop:
            raise ReleaseTask

    return work(tell, start=task.saved or 0)
