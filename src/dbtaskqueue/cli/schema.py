"""The commands about the database itself: migrate, doctor."""

from __future__ import annotations

import os

import click

from .._store import open_store
from .._store.base import Finding
from ..errors import TaskQueueError
from ..queue import QueueStats, TaskQueue
from ..url import DEFAULT_URL
from .looking import describe
from .options import command_line, json_option, open_queue, queue_option
from .output import counted, fields, harmless, print_json


@click.command()
@click.pass_obj
def migrate(url: str | None) -> None:
    """Make the schema, or upgrade it to this program's version."""
    store = open_store(url or os.environ.get("DBTASKQUEUE_URL") or DEFAULT_URL)
    try:
        before, after = store.migrate()
    finally:
        store.close()
    was = f"version {before}" if before else "none"
    click.echo(f"schema: {was} before, version {after} now")


@click.command()
@queue_option
@json_option
@click.pass_obj
def doctor(url: str | None, queue: str, json: bool) -> None:
    """Examine the database, and say what mends it.

    The exit code is 1 only for what must be repaired.
    """
    try:
        with open_queue(url, queue) as lane:
            found = _examine(url, lane)
    except TaskQueueError as error:
        if json:
            _print_json([Finding("database", str(error), broken=True)])
        raise
    (_print_json if json else _print)(found)
    broken = [finding for finding in found if finding.broken]
    if broken:
        raise click.ClickException("must be repaired: " + harmless("; ".join(f"{b.name}: {b.value}" for b in broken)))


def _examine(url: str | None, queue: TaskQueue) -> list[Finding]:
    stats = queue.stats()
    return [*queue.store.findings(), _workers(queue), *_tasks(url, queue.name, stats)]


def _workers(queue: TaskQueue) -> Finding:
    states = [describe(queue, worker)["state"] for worker in queue.store.workers()]
    return Finding("workers", f"{states.count('alive')} alive, {states.count('lost')} lost")


def _tasks(url: str | None, queue: str, stats: QueueStats) -> list[Finding]:
    own = () if queue == "default" else ("--queue", queue)
    found = [Finding("queue", f"{queue}, paused" if stats.paused else queue)]
    if stats.paused:
        found[0] = found[0]._replace(advice=command_line(url, "resume", *own))
    waited = "nothing is due" if stats.oldest_due is None else f"has waited {stats.oldest_due:.1f} s"
    stranded = stats.oldest_due is not None and not stats.workers
    start = command_line(url, "worker", *own, "MODULE:NAME") if stranded else None
    found.append(Finding("oldest due", f"{waited}, and no worker is alive" if stranded else waited, start))
    if stats.abandoned:
        look = command_line(url, "list", *own, "--state", "abandoned")
        found.append(Finding("abandoned", f"{counted(stats.abandoned)} failed for the last time", look))
    return found


def _print(found: list[Finding]) -> None:
    fields((finding.name, finding.value) for finding in found)
    needy = [finding for finding in found if finding.advice]
    click.echo("\nWhat needs you:" if needy else "\nNothing needs you.")
    for finding in needy:
        click.echo(harmless(f"  {finding.name}: {finding.advice}"))


def _print_json(found: list[Finding]) -> None:
    broken = any(finding.broken for finding in found)
    print_json({"broken": broken, "findings": [finding._asdict() for finding in found]})
