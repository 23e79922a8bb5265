"""The commands about the database itself: migrate, doctor."""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from .. import clock
from .._store import open_store
from .._store.base import Finding, Store
from ..errors import TaskQueueError
from ..names import check_queue
from ..queue import TaskQueue
from ..states import ABANDONED
from ..url import DEFAULT_URL
from .looking import describe
from .options import checked, command_line, default_queue, json_option, open_queue
from .output import counted, fields, harmless, print_json

_MOST_NAMES = 10


@click.command()
@click.option("--sql", is_flag=True, help="Only print what it would do, for whoever may change the schema.")
@click.pass_obj
def migrate(url: str | None, sql: bool) -> None:
    """Make the schema, or upgrade it to this program's version."""
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
@click.option(
    "--queue",
    metavar="NAME",
    default=lambda: os.environ.get("DBTASKQUEUE_QUEUE") or None,
    callback=checked(check_queue),
    help="Only this queue.  [default: $DBTASKQUEUE_QUEUE, else all queues]",
)
@json_option
@click.pass_obj
def doctor(url: str | None, queue: str | None, json: bool) -> None:
    """Examine the database, and say what mends it.

    The exit code is 1 only for what must be repaired.
    """
    try:
        with open_queue(url) as lane:
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
    states = [describe(lane, worker)["state"] for worker in store.workers()]
    return [
        *store.findings(),
        Finding("workers", f"{states.count('alive')} alive, {states.count('lost')} lost"),
        Finding("queues", _listed(names)),
        *_paused(url, store, names),
        _oldest_due(url, store, names, any_alive="alive" in states),
        *_abandoned(url, store, names),
    ]


def _listed(names: list[str]) -> str:
    more = len(names) - _MOST_NAMES
    return (", ".join(names[:_MOST_NAMES]) or "none") + (f" and {more} more" if more > 0 else "")


def _paused(url: str | None, store: Store, names: list[str]) -> Iterator[Finding]:
    for name in filter(store.is_paused, names):
        yield Finding("paused", f"the queue {name}", command_line(url, "resume", *_option(name)))


def _oldest_due(url: str | None, store: Store, names: list[str], *, any_alive: bool) -> Finding:
    now = clock.now()
    times = [(store.next_due([name], even_paused=True), name) for name in names]
    due, name = min(((due, name) for due, name in times if due is not None), default=(now + 1, ""))
    if due > now:
        return Finding("oldest due", "nothing is due")
    waited = f"a task of the queue {name} has waited {(now - due) / 1e6:.1f} s"
    if any_alive:
        return Finding("oldest due", waited)
    start = command_line(url, "worker", *_option(name), "MODULE:NAME")
    return Finding("oldest due", f"{waited}, and no worker is alive", start)


def _abandoned(url: str | None, store: Store, names: list[str]) -> Iterator[Finding]:
    for name in names:
        number = store.count(name, final=True)[ABANDONED]
        if number:
            look = command_line(url, "list", *_option(name), "--state", "abandoned")
            yield Finding("abandoned", f"{counted(number)} of the queue {name} failed for the last time", look)


def _option(name: str) -> tuple[str, ...]:
    return () if name == default_queue() else ("--queue", name)


def _print(found: list[Finding]) -> None:
    fields((finding.name, finding.value) for finding in found)
    needy = [finding for finding in found if finding.advice]
    click.echo("\nWhat needs you:" if needy else "\nNothing needs you.")
    for finding in needy:
        click.echo(harmless(f"  {finding.name}: {finding.advice}"))


def _print_json(found: list[Finding]) -> None:
    broken = any(finding.broken for finding in found)
    print_json({"broken": broken, "findings": [finding._asdict() for finding in found]})
