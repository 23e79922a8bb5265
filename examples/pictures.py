"""Task functions in a module, and a worker from the command line.

python examples/pictures.py a.png b.png
dbtaskqueue worker --burst examples.pictures:queue
"""

import sys

from dbtaskqueue import RetryPolicy, TaskQueue, current_task

queue = TaskQueue(queue="pictures", retry=RetryPolicy(delay=30, max_attempts=5))


@queue.task(name="thumbnail")
def thumbnail(path: str, width: int = 320) -> str:
    print(f"attempt {current_task().attempt} at {path}")
    return f"{path}.{width}.png"


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print("task", thumbnail.using(key=path).enqueue(path).id)
