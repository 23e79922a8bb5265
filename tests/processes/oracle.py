"""What producers and workers wrote into files while they ran: the truth outside of the database."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

WORKER = """
import logging, os, sys, time
from dbtaskqueue import Worker, current_task
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def work(number):
    task = current_task()
    def note(what):
        os.write(log, f"{what} {task.id} {task.token} {os.getpid()} {time.monotonic_ns()}\\n".encode())
    note("begin")
    if number % 40 == 7:
        time.sleep(0.002)
    note("end")
Worker(sys.argv[1]).run(work)
"""


class Run(NamedTuple):
    """One execution of a task, as its worker wrote it down; ``end`` is None when it was killed in it."""

    begin: int
    end: int | None
    token: int
    pid: int


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def runs_of(path: Path) -> dict[int, list[Run]]:
    """Every execution of every task, in the order in which they began."""
    open_runs: dict[tuple[int, int], Run] = {}
    for line in lines(path):
        what, task, token, pid, moment = line.split()
        key = int(task), int(token)
        if what == "begin":
            assert key not in open_runs, f"task {task} ran twice under one token"
            open_runs[key] = Run(int(moment), None, int(token), int(pid))
        else:
            open_runs[key] = open_runs[key]._replace(end=int(moment))
    runs = defaultdict(list)
    for (task, _), run in open_runs.items():
        runs[task].append(run)
    return {task: sorted(each) for task, each in runs.items()}
