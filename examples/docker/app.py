"""A task function for the container; docker compose exec worker python app.py enqueues a call of it."""

from dbtaskqueue import TaskQueue, current_task

queue = TaskQueue()  # $DBTASKQUEUE_URL


@queue.task(name="count")
def count(steps: int) -> int:
    task = current_task()
    for step in range(task.saved or 0, steps):
        task.checkpoint(step + 1)
        task.progress(step + 1, steps)
    return steps


if __name__ == "__main__":
    print("task", count.enqueue(100).id)
