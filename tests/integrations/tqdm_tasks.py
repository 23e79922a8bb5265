"""Tasks with progress bars, for child processes."""

from __future__ import annotations

import sys
import threading

from dbtaskqueue import TaskQueue, current_task
from dbtaskqueue.integrations.tqdm import patch, tqdm, trange

queue = TaskQueue(open=False)


@queue.task
def crawl(pages: int) -> object:
    for _ in tqdm(range(pages), desc="pages", mininterval=0):
        for _ in trange(2):
            pass
    return current_task()._tracker.latest


both_have_bars = threading.Barrier(2)


@queue.task
def crawl_beside_another(pages: int) -> object:
    """Keep the outer bar open until the other task has one."""
    bar = tqdm(range(pages), mininterval=0)
    both_have_bars.wait(30)
    for _ in bar:
        for _ in trange(2, mininterval=0):
            pass
    both_have_bars.wait(30)
    return current_task()._tracker.latest


@queue.task
def crawl_with_a_library(pages: int) -> object:
    patch()
    from tqdm.auto import tqdm as theirs

    with theirs(total=pages, desc="theirs") as bar:
        bar.update(2)
    return current_task()._tracker.latest


@queue.task
def crawl_until_cancelled() -> None:
    bar = tqdm(total=10, mininterval=0)
    try:
        while True:
            queue.cancel(current_task().id)
            bar.update(1)
    finally:
        bar.close()


@queue.task
def crawl_into(path: str) -> object:
    with open(path, "w") as file:
        for _ in tqdm([1, 2], file=file, mininterval=0):
            print("a line", file=sys.stderr)
    return None
