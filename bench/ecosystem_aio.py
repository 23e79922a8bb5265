"""An AsyncTaskQueue: the threads that awaited results take, how long they block the loop, and what waiting costs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from dbtaskqueue import AsyncTaskQueue

from . import databases
from .harness import Bench, Row
from .processes import start_child

AWAITED, WAITS, CHANGES = 500, 1_000, 50
"""Results awaited at once; tasks waited for at once; changes of the database in a second meanwhile."""
_SECONDS = 4.0


def measure(bench: Bench) -> Iterator[Row]:
    """Measure all figures."""
    yield from threads_and_blocks(bench)
    yield statements(bench)


def threads_and_blocks(bench: Bench) -> Iterator[Row]:
    """Await results while a worker process runs the tasks: the most threads, and the longest callback of the loop."""
    bench.say(f"{AWAITED} awaited results")
    found = [asyncio.run(_await_results(bench)) for _ in range(bench.repeats)]
    details = f"{AWAITED} tasks run by a worker process, all results awaited in one loop; a fresh file each"
    yield Row(
        "ecosystem", f"threads for {AWAITED} awaited results", [each[0] for each in found], "", 8, details=details
    )
    yield Row(
        "ecosystem", "longest block of the loop meanwhile", [each[1] for each in found], "ms", 50, details=details
    )


async def _await_results(bench: Bench) -> tuple[float, float]:
    before = threading.active_count()
    with databases.fresh(bench) as path:
        async with AsyncTaskQueue(databases.url(path)) as queue:
            tasks = await queue.enqueue_many([{"number": number} for number in range(AWAITED)])
            with start_child("idle_worker.py", databases.url(path)):  # which takes a while to start
                async with _watched() as seen:
                    results = await asyncio.gather(*(task.get_result(timeout=60) for task in tasks))
            assert [result["number"] for result in results] == list(range(AWAITED))
    return seen["threads"] - before, seen["block"] * 1e3


@contextlib.asynccontextmanager
async def _watched() -> AsyncIterator[dict[str, float]]:
    """Measure each callback of the loop, and the number of threads."""
    seen = {"threads": 0.0, "block": 0.0}
    is_over = False
    run = asyncio.events.Handle._run

    def timed(handle: Any) -> None:
        started = time.perf_counter()
        run(handle)
        if is_over:  # this is the callback that ends the block
            return
        seen["block"] = max(seen["block"], time.perf_counter() - started)
        seen["threads"] = max(seen["threads"], threading.active_count())

    asyncio.events.Handle._run = timed  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        is_over = True
        asyncio.events.Handle._run = run  # type: ignore[method-assign]


def statements(bench: Bench) -> Row:
    """Compare the queries of many waits with those of one, while the database changes all the time."""
    bench.say(f"{WAITS:,} waits")
    ratios, details = [], ""
    for _ in range(bench.repeats):
        with databases.fresh(bench) as path:
            one, many = asyncio.run(_queries(databases.url(path)))
        ratios.append(many / one)
        details = f"{CHANGES} changes a second by others; in the last repeat {one:.1f} and {many:.1f} queries a second"
    return Row("ecosystem", f"queries of {WAITS:,} waits, relative to one", ratios, "×", 2.0, details=details)


async def _queries(url: str) -> tuple[float, float]:
    async with AsyncTaskQueue(url) as queue:
        tasks = await queue.enqueue_many([None] * WAITS, start_in=3600)
        changing = asyncio.create_task(_change(queue.lane("other")))
        store: Any = queue.sync.store
        count = 0
        reads = {name: getattr(store, name) for name in ("standings", "get", "summaries")}

        def counted(name: str) -> Any:
            def read(*given: Any) -> Any:
                nonlocal count
                count += 1
                return reads[name](*given)

            return read

        for name in reads:
            setattr(store, name, counted(name))
        rates = []
        for number in (1, WAITS):
            waits = [asyncio.create_task(task.wait()) for task in tasks[:number]]
            await asyncio.sleep(_SECONDS / 4)
            count, started = 0, time.perf_counter()
            await asyncio.sleep(_SECONDS)
            rates.append(count / (time.perf_counter() - started))
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        changing.cancel()
        return rates[0], rates[1]


async def _change(queue: AsyncTaskQueue) -> None:
    while True:
        await queue.enqueue()
        await asyncio.sleep(1 / CHANGES)
