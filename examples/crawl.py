"""A task that takes hours: it crawls a site page by page, and continues where it was if its worker stops or dies.

dbtaskqueue worker --executor process examples.crawl:queue

examples/long_task.py shows in ten seconds that it survives a crash, a suspension and a deploy.
"""

import os
import urllib.request
from pathlib import Path

from dbtaskqueue import ReleaseTask, TaskQueue, current_task

queue = TaskQueue(queue="crawl")


def read(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": f"crawl/{os.getpid()}"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return response.read()


def names(site: str) -> list[str]:
    return read(f"{site}/names").decode().split()


@queue.task(name="crawl", stall_limit=600)  # stopped and retried after ten minutes without progress
def crawl(site: str, directory: str) -> dict:
    task = current_task()
    pages = task.step("names", names, site)  # runs once, even if the task starts several times
    for number in range(task.saved or 0, len(pages)):
        if task.should_stop:  # a deploy: the next worker continues here, without spending an attempt
            raise ReleaseTask
        page = read(f"{site}/{pages[number]}")
        Path(directory, pages[number]).write_bytes(page)  # if killed here, the page is written again
        task.checkpoint(number + 1)  # if killed here, it is not written again
        task.progress(number + 1, len(pages), pages[number])
    return {"pages": len(pages)}
