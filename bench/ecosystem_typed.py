"""Typed arguments: enqueue and run calls with dates, UUIDs, Decimals and a dataclass, against calls with their JSON.

Both take turns in one process, in blocks, and the CPU time of the process is compared: other load does not matter.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

from dbtaskqueue import TaskQueue, Worker
from dbtaskqueue.coding import Coder
from dbtaskqueue.integrations.msgspec import MsgspecCoder
from dbtaskqueue.integrations.pydantic import PydanticCoder

from . import databases
from .harness import Bench, Row, ratios

BLOCKS, _BLOCK = 40, 100
_ENQUEUE = {"msgspec": 0.8, "pydantic": 0.5}
_RUN = {"msgspec": 0.8, "pydantic": 0.5}
_SAME = 0.97


@dataclass
class Options:
    """An argument whose class is defined here."""

    size: int
    until: date


def typed(day: date, ids: list[UUID], price: Decimal, options: Options) -> Decimal:
    """Return an argument."""
    return price


def plain(day: str, ids: list[str], price: str, options: dict[str, Any]) -> str:
    """Return an argument."""
    return price


TYPED = date(2026, 11, 28), [UUID(int=1), UUID(int=2)], Decimal("1.10"), Options(3, date(2026, 12, 1))
PLAIN = "2026-11-28", [str(UUID(int=1)), str(UUID(int=2))], "1.10", {"size": 3, "until": "2026-12-01"}


def measure(bench: Bench) -> Iterator[Row]:
    """Yield rows for both coders, and for plain functions beside a coder."""
    coders: dict[str, Callable[[], Coder]] = {"msgspec": MsgspecCoder, "pydantic": PydanticCoder}
    for name, coder in coders.items():
        bench.say(f"typed arguments with {name}")
        found = [_turns(bench, [coder()], typed, TYPED) for _ in range(bench.repeats)]
        for index, (what, targets) in enumerate((("enqueue", _ENQUEUE), ("run", _RUN))):
            yield _row(f"{what} calls with typed arguments ({name}) against their JSON", found, index, targets[name])
    bench.say("plain arguments of a queue with a coder")
    found = [_turns(bench, [MsgspecCoder()], plain, PLAIN) for _ in range(bench.repeats)]
    for index, what in enumerate(("enqueue", "run")):
        yield _row(f"{what} plain calls of a queue with a coder against one without", found, index, _SAME)


Found = list[list[float]]
"""For each repeat: CPU seconds of all tasks to enqueue them without a coder and with one, and to run them."""


def _row(what: str, found: Found, index: int, target: float) -> Row:
    without, coded = ([each[2 * index + side] for each in found] for side in (0, 1))
    details = f"{statistics.median(coded) * 1e6:.0f} µs of CPU against {statistics.median(without) * 1e6:.0f} µs"
    return Row("ecosystem_typed", what, ratios(without, coded), "×", target, at_least=True, details=details)


def _turns(bench: Bench, coders: list[Coder], function: Callable[..., Any], args: tuple[Any, ...]) -> list[float]:
    spent = [0.0] * 4
    blocks = bench.some(BLOCKS)
    with contextlib.ExitStack() as stack:
        urls = [databases.url(stack.enter_context(databases.fresh(bench)), "NORMAL") for _ in range(2)]
        queue = stack.enter_context(TaskQueue(urls[0]))
        coded = stack.enter_context(TaskQueue(urls[1], coders=coders))
        sides = [(0, queue.task(plain), PLAIN), (1, coded.task(function), args)]
        for block in range(blocks + 1):
            for side, task_function, given in sides if block % 2 else reversed(sides):
                started = time.process_time()
                for _ in range(_BLOCK):
                    task_function.enqueue(*given)
                if block:  # the first one warms up
                    spent[side] += time.process_time() - started
        for block in range(blocks):
            for side, served in ((0, queue), (1, coded)) if block % 2 else ((1, coded), (0, queue)):
                started = time.process_time()
                Worker(served).run(max_tasks=_BLOCK)
                spent[2 + side] += time.process_time() - started
    return [seconds / (blocks * _BLOCK) for seconds in spent]
