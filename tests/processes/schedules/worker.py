"""A worker of the test of exactly-once ticks. Each run of a task is written to a file, outside of the database.

``TWIN`` in the environment breaks it in one way: ``no compare-and-set``, or ``no row`` for the tick.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from dbtaskqueue import Worker, current_task
from dbtaskqueue._store.connections import Transaction
from dbtaskqueue._store.verbs import schedules


def break_it(twin: str) -> None:
    """Make ticks by a design that is wrong."""
    if twin in ("no compare-and-set", "neither"):
        schedules._move = _moved  # type: ignore[assignment]
    if twin in ("no row", "neither"):
        schedules._unmade = _all  # type: ignore[assignment]


def _moved(tx: Transaction, plan: Any) -> bool:
    """Move a schedule, wherever it is now."""
    values = {"queue": plan.schedule.queue, "name": plan.schedule.name}
    tx.change("settle_schedule", {**values, "paused": 0, "next_at": plan.next_at, "last_at": None, "missed": 0})
    return True


def _all(tx: Transaction, plan: Any) -> list[Any]:
    """Make ticks that have a row already, too."""
    for tick in plan.ticks:
        row = {"queue": plan.schedule.queue, "schedule": plan.schedule.name, "at": tick.at}
        tx.change("insert_tick", {**row, "outcome": "ran", "task": None, "missed": 0})
    return list(plan.ticks)


def main() -> None:
    """Run tasks until killed."""
    url, directory = sys.argv[1:]
    break_it(os.environ.get("TWIN", ""))
    log = os.open(f"{directory}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(payload: object) -> None:
        task = current_task()
        assert task.tick is not None
        os.write(log, f"{task.tick.schedule} {round(task.tick.at.timestamp())} {task.id}\n".encode())

    Worker(url, concurrency=4).run(run)


if __name__ == "__main__":
    main()
