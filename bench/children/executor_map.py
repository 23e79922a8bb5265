"""Print the seconds that ``map`` of calls that do nothing takes: KIND URL CALLS WORKERS."""

import json
import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor

from dbtaskqueue.integrations.futures import QueueExecutor


def main(kind: str, url: str, calls: int, workers: int) -> float:
    """Return the seconds, once the first child process has run a call."""
    executor: Executor = ProcessPoolExecutor(workers)
    if kind == "ours":
        executor = QueueExecutor(url, max_workers=workers, executor="process")
    with executor:
        executor.submit(abs, -1).result()
        started = time.perf_counter()
        assert sum(executor.map(abs, range(calls))) == calls * (calls - 1) // 2
        return time.perf_counter() - started


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
