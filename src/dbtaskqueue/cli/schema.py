"""The commands about the database itself: migrate, doctor."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from json import loads

import click

from .._formats.url import DEFAULT_URL
from .._store import open_store
from .._store.contract import Finding, Store, TaskRecord, WorkerRecord
from .._system import clock
from ..checks import listed
from ..errors import TaskQueueError
from ..outcomes import UNKNOWN_DELAYS
from ..overview import LATEST, name_of, summarize
from ..queue import TaskQueue
from ..states import ABANDONED, DONE, RUNNING
from .looking import describe
from .options import command_line, default_queue, json_option, one_queue_option, open_queue, url_option
from .output import counted, fields, harmless, print_json, took
from .queues import refuse_unknown

_MOST_NAMES = 10
_MOST_RUNNING = 500
_MOST_WAITING = 500
_TIMES_SLOWER, _ENOUGH = 3, 5
"""A running task is slow after three times what nearly all took, where at least five are known."""
_NEVER_SLOW = 1.0
"""Seconds. Of functions that take milliseconds, whatever the doctor happens to see has run for long."""


@click.command()
@click.option("--sql", is_flag=True, help="Only print the SQL statements, for an administrator to run.")
@url_option
@click.pass_obj
def migrate(url: str | None, sql: bool) -> None:
    """Create the schema, or upgrade it."""
    store = open_store(url or os.environ.get("DBTASKQUEUE_URL") or DEFAULT_URL)
    try:
        if sql:
            click.echo("".join(f"{statement};\n\n" for statement in store.missing_statements()), nl=False)
            return
        before, after = store.migrate()
    finally:
        store.close()
    was = f"version {before}" if before else "none"
    click.echo(f"schema: {was} before, version {after} now")


@click.command()
@one_queue_option
@json_option
@url_option
@click.pass_obj
def doctor(url: str | None, queue: str | None, json: bool) -> None:
    """Check the database, and suggest fixes.

    It covers all queues unless --queue names one. The exit code is 1 only if something must be repaired.
    """
    try:
        with open_queue(url) as lane:
            refuse_unknown(lane.store, queue)
            found = _examine(url, lane, queue)
    except TaskQueueError as error:
        if json:
            _print_json([Finding("database", str(error), broken=True)])
        raise
    (_print_json if json else _print)(found)
    broken = [finding for finding in found if finding.broken]
    if broken:
        raise click.ClickException("must be repaired: " + harmless("; ".join(f"{b.name}: {b.value}" for b in broken)))


def _examine(url: str | None, lane: TaskQueue, queue: str | None) -> list[Finding]:
    store, names = lane.store, [queue] if queue else lane.store.queues()
    workers = store.workers()
    states = [describe(lane, worker)["state"] for worker in workers]
    alive = [worker for worker, state in zip(workers, states, strict=True) if state == "alive"]
    return [
        *store.findings(),
        Finding("workers", f"{states.count('alive')} alive, {states.count('lost')} lost"),
        Finding("queues", listed(names)),
        *_paused(url, store, names),
        _oldest_due(url, store, names, any_alive=bool(alive)),
        *_unknown(url, store, names, alive),
        *_abandoned(url, store, names),
        *_slow(url, store, names),
    ]


def _paused(url: str | None, store: Store, names: list[str]) -> Iterator[Finding]:
    for name in filter(store.is_paused, names):
        yield Finding("paused", f"queue {name}", command_line(url, "resume", *_option(name)))


def _oldest_due(url: str | None, store: Store, names: list[str], *, any_alive: bool) -> Finding:
    now = clock.now()
    times = [(since, name) for name in names if (since := store.waiting_since(name, now)) is not None]
    if not times:
        return Finding("oldest due", "nothing is due")
    since, name = min(times)
    waited = f"a task of queue {name} has waited {(now - since) / 1e6:.1f} s"
    if any_alive:
        return Finding("oldest due", waited)
    start = command_line(url, "worker", *_option(name), "MODULE:NAME")
    return Finding("oldest due", f"{waited}; no worker is alive", start)


def _unknown(url: str | None, store: Store, names: list[str], alive: list[WorkerRecord]) -> Iterator[Finding]:
    """Functions of due tasks that no live worker has code for, including tasks just released for this reason."""
    before = clock.now() + round(UNKNOWN_DELAYS[1] * 1e6)
    for name in names:
        known = _known(name, alive)
        if known is None:
            continue
        waiting = Counter(store.next_functions(name, _MOST_WAITING, before))
        for function in sorted(waiting.keys() - known, key=str):
            number = waiting[function]
            tasks = f"{counted(number)} {'waits' if number == 1 else 'wait'}"
            value = (
                f"{tasks} without a function, and no live worker of the queue {name} has a callback"
                if function is None
                else f"{function}: {tasks}, and no live worker of the queue {name} knows it; the live workers know:"
                f" {listed(sorted(each for each in known if each is not None))}"
            )
            start = command_line(url, "worker", *_option(name), "MODULE:NAME")
            yield Finding("function", value, f"start a worker with the code for it: {start}")


def _known(queue: str, alive: list[WorkerRecord]) -> set[str | None] | None:
    """What the live workers of a queue have code for; None if there are none, or one does not say."""
    known: set[str | None] | None = None
    for worker in alive:
        try:
            queues, functions = set(loads(worker.queues or "")), set(loads(worker.functions or ""))
        except (ValueError, TypeError):  # a plain fetch() user, a worker of version 0.1.0, or a damaged row
            return None
        if queue in queues:
            known = (known or set()) | functions
    return known


def _abandoned(url: str | None, store: Store, names: list[str]) -> Iterator[Finding]:
    for name in names:
        number = store.count(name, final=True)[ABANDONED]
        if number:
            look = command_line(url, "list", *_option(name), "--state", "abandoned")
            yield Finding("abandoned", f"{counted(number)} of queue {name}", look)


def _slow(url: str | None, store: Store, names: list[str]) -> Iterator[Finding]:
    for name in names:
        running = [task for task in store.tasks(name, RUNNING, _MOST_RUNNING, None) if not task.suspended]
        if running:
            done = [attempt for attempt in store.ended(name, LATEST) if attempt.outcome == DONE]
            usual = {each.function: each.p95 for each in summarize(done) if each.count >= _ENOUGH}
            findings = [found for task in running if (found := _slow_task(url, task, usual))]
            yield from findings[:_MOST_NAMES]
            if len(findings) > _MOST_NAMES:
                look = command_line(url, "list", *_option(name), "--state", "running")
                yield Finding("slow", f"{len(findings) - _MOST_NAMES} more of queue {name}", look)


def _slow_task(url: str | None, task: TaskRecord, usual: dict[str, float | None]) -> Finding | None:
    function = name_of(task.function, task.command)
    p95 = usual.get(function)
    runs = (clock.now() - (task.started_at or clock.now())) / 1e6
    if p95 is None or runs <= max(_TIMES_SLOWER * p95, _NEVER_SLOW):
        return None
    others = f"95 % of {function} took at most {took(p95)}"
    return Finding(
        "slow", f"task {task.id} has run for {took(runs)}; {others}", command_line(url, "show", str(task.id))
    )


def _option(name: str) -> tuple[str, ...]:
    return () if name == default_queue() else ("--queue", name)


def _print(found: list[Finding]) -> None:
    fields((finding.name, finding.value) for finding in found)
    needy = [finding for finding in found if finding.advice]
    click.echo("\nAction required; suggested fixes:" if needy else "\nNo action required.")
    for finding in needy:
        click.echo(harmless(f"  {finding.name}: {finding.advice}"))


def _print_json(found: list[Finding]) -> None:
    broken = any(finding.broken for finding in found)
    print_json({"broken": broken, "findings": [finding._asdict() for finding in found]})
