"""The command ``copy``: all queues of one database to another, of any engine."""

from __future__ import annotations

import time
from collections.abc import Callable

import click

from .._maintenance.rescuer import Rescuer
from .._store import open_store
from .._store.contract import Store
from .._system.place import here
from ..errors import SchemaError, TaskQueueError
from ..events import Events
from .output import counted, progress

_BATCH = 500
_CHECK_INTERVAL = 0.5


@click.command()
@click.argument("source", metavar="FROM_URL")
@click.argument("target", metavar="TO_URL")
def copy(source: str, target: str) -> None:
    """Copy all queues of a database to an empty one.

    The databases may be of different engines. Stop producers and workers first. If interrupted, run it again to
    continue.
    """
    old, new = open_store(source), open_store(target)
    try:
        old.prepare(create=False)
        _refuse_live_workers(old)
        done = _start(old, new)
        with progress("copying tasks", old.export(2**62, 1).highest) as advance:
            count = _copy(old, new, done, advance)
    finally:
        old.close()
        new.close()
    click.echo(f"{counted(count)} copied")


def _refuse_live_workers(store: Store) -> None:
    """Release what dead workers hold. Raise an error if a worker is alive.

    A worker on another machine is presumed dead after a lease without a heartbeat, so this may take that long.
    """
    rescuer = Rescuer(store, here(), Events())
    beats: dict[int, int] = {}
    while workers := [worker for worker in store.workers() if worker.lost_at is None]:
        for worker in workers:
            if rescuer.is_gone(worker) is False or beats.setdefault(worker.id, worker.beat) != worker.beat:
                name = f"worker {worker.id} (process {worker.pid} on {worker.host})"
                raise TaskQueueError(f"{name} is alive; stop all workers and producers before copying")
        rescuer()
        time.sleep(_CHECK_INTERVAL)
    rescuer()


def _start(old: Store, new: Store) -> int:
    """Prepare the target. Return the highest id that an earlier run has copied."""
    try:
        new.migrate()
    except SchemaError:
        if not new.is_importing():
            raise
    newest = new.newest()
    if not new.is_importing():
        if newest is not None or new.queues():
            raise TaskQueueError("the target is not empty; copy needs a database without tasks and queues")
        new.begin_import()
    if newest is None:
        return 0
    here, there = old.get(newest[0]), new.get(newest[0])
    if here is None or there is None or here._replace(worker=None) != there._replace(worker=None):
        raise TaskQueueError("the target was being filled from another database, or the source has changed since")
    return newest[0]


def _copy(old: Store, new: Store, done: int, advance: Callable[[int], None]) -> int:
    if not done:
        _copy_history(old, new)
        _copy_ticks(old, new)
        _copy_actions(old, new)
    count, highest = 0, 0
    while True:
        batch = old.export(done, _BATCH)
        highest = max(highest, batch.highest)
        if batch.last is None and done:
            break
        new.load(batch)
        count += len(batch.rows["task"])
        if batch.last is None:
            break
        done = batch.last
        advance(done)
    new.end_import(highest)
    return count


def _copy_history(old: Store, new: Store) -> None:
    """Copy the history and what is pruned. An interrupted copy overwrites it when it is run again."""
    rows, samples = old.history(0), old.samples(0)
    for at in range(0, len(rows), _BATCH):
        new.write_history(rows[at : at + _BATCH])
    for at in range(0, len(samples), _BATCH):
        new.write_samples(samples[at : at + _BATCH])
    for retention in old.retentions():
        new.set_retention(retention)


def _copy_ticks(old: Store, new: Store) -> None:
    """Copy the ticks of schedules. This comes before the tasks: an interrupted copy with tasks then has all ticks."""
    after = -(2**63)
    while ticks := old.export_ticks(after, _BATCH):
        new.load_ticks(ticks)
        after = max(tick["at"] for tick in ticks)


def _copy_actions(old: Store, new: Store) -> None:
    """Copy the audit log and the operations of dashboards, newest first."""
    before = None
    while actions := old.actions(_BATCH, before, {}):
        new.load_actions(actions, [])
        before = actions[-1].id
    before = None
    while operations := old.operations(_BATCH, before):
        new.load_actions([], operations)
        before = operations[-1].id
