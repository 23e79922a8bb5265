"""The command schedules and its subcommands, which list, change and run schedules."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC
from typing import Any, Unpack, get_args

import click
from click.core import ParameterSource

from .._formats import quantities
from .._formats.cron import in_words
from .._formats.display import short_duration
from .._formats.timetable import CatchUp, Timetable
from .._store.contract import NewAction
from .._system import clock
from ..audit import new_action
from ..calls import Target
from ..options import Defaults
from ..queue import TaskQueue
from ..schedules import (
    Overlap,
    Schedule,
    TickInfo,
    as_schedule,
    check_name,
    check_times,
    run_now,
    set_paused,
    store_schedule,
    tick_infos,
    to_record,
    to_target,
)
from .options import (
    bound_to,
    checked,
    flags_of,
    json_option,
    one_queue_option,
    open_queue,
    operator,
    queue_option,
    url_option,
)
from .output import WIDE, console, counted, escaped, local, note, print_json, table
from .producing import TargetCommand, target_options
from .working import find_queue

_EXAMPLES = """
\b
Examples:
  dbtaskqueue schedules add backup --cron "0 3 * * *" --command -- pg_dump db
  dbtaskqueue schedules next "30 6 * * 1-5" --timezone Europe/Berlin
  dbtaskqueue schedules history backup
"""

_MOST_NEXT = 10_000


class _Subcommands(click.Group):
    """A group whose help lists the subcommands in the order of their definitions."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of their definitions."""
        return list(self.commands)


@click.group(cls=_Subcommands, invoke_without_command=True, epilog=_EXAMPLES)
@one_queue_option
@json_option
@url_option
@click.pass_context
def schedules(ctx: click.Context, queue: str | None, json: bool) -> None:
    """List schedules, or add, remove, pause, resume or run one.

    Without a subcommand, list the schedules of all queues, each with its next and its last tick.
    """
    if ctx.invoked_subcommand is not None:
        if json:
            raise click.UsageError(f"give --json after the subcommand: schedules {ctx.invoked_subcommand} --json")
        if ctx.get_parameter_source("queue") is ParameterSource.COMMANDLINE:
            ctx.find_root().params["queues"] = [queue]  # as if it were given before the command
        return
    with open_queue(ctx.obj) as opened:
        found = [as_schedule(record) for record in opened.store.schedules(queue)]
    if json:
        print_json([schedule._asdict() for schedule in found])
    elif found:
        show_schedules(found)
    else:
        note("no schedules" if queue is None else f"queue {queue} has no schedules")


def show_schedules(found: Sequence[Schedule]) -> None:
    """Print a table of schedules. A wide terminal also shows when they fire."""
    wide = console().width >= WIDE
    several = len({schedule.queue for schedule in found}) > 1
    # the name comes last, since a long one is cut there
    names = ("next", "last", "task", "skipped", "missed", *(("fires",) if wide else ()), "name")
    table(names, [_row(schedule, wide=wide, several=several) for schedule in found])


def _row(schedule: Schedule, *, wide: bool, several: bool) -> tuple[str, ...]:
    return (
        "paused" if schedule.paused else local(schedule.next_at) or "never",
        local(schedule.last_at),
        "" if schedule.last_task is None else str(schedule.last_task),
        str(schedule.skipped),
        str(schedule.missed),
        *((fires(schedule),) if wide else ()),
        f"{schedule.queue}/{schedule.name}" if several else schedule.name,
    )


def fires(schedule: Schedule) -> str:
    """Return when a schedule fires, in a few words."""
    if schedule.cron is None:
        return f"every {short_duration(schedule.every)}"
    return schedule.cron if schedule.timezone == "UTC" else f"{schedule.cron} {schedule.timezone}"


# -- changing schedules ----------------------------------------------------------------------------

_name = click.argument("name", callback=checked(check_name))


@schedules.command(cls=TargetCommand)
@_name
@click.option(
    "--cron", metavar="EXPR", help="When it fires: five fields, six with seconds first, or a name such as @daily."
)
@click.option(
    "--every",
    metavar="DURATION",
    callback=checked(quantities.seconds),
    help="How often it fires: 90 (seconds), 5m, 12h, 2d.",
)
@click.option("--timezone", metavar="TZ", default="UTC", help="The time zone of --cron, such as Europe/Berlin.")
@click.option(
    "--overlap",
    type=click.Choice(get_args(Overlap)),
    default="skip",
    help="If the previous task is unfinished: skip the tick, allow both tasks, queue the new task behind it, or replace"
    " it.",
)
@click.option(
    "--catch-up",
    type=click.Choice(get_args(CatchUp)),
    default="latest",
    help="Which ticks to make after an outage. The others count as missed.",
)
@flags_of(Defaults, "schedules_add")
@target_options
@queue_option
@url_option
@click.pass_context
def add(
    ctx: click.Context,
    name: str,
    target: Target,
    cron: str | None,
    every: float | None,
    timezone: str,
    overlap: Overlap,
    catch_up: CatchUp,
    queue: str,
    **options: Unpack[Defaults],
) -> None:
    """Add a schedule, or change the one with this name.

    PAYLOAD is JSON; "-" reads it from stdin. With --command, a command line replaces it, which only workers with
    --allow-commands run. Give either --cron or --every. The other options apply to each task.
    """
    if (cron is None) == (every is None):
        raise click.UsageError("give either --cron or --every")
    with open_queue(ctx.obj, queue, create=True) as opened:
        made = _usage(
            lambda: store_schedule(
                opened.store,
                to_record(
                    queue,
                    name,
                    to_target(target, queue, opened.retry_policy, limit=opened.store.max_payload, options=options),
                    check_times(cron, every, timezone, overlap, catch_up),
                    declared=False,
                ),
                _action("schedule", queue, name),
            )
        )
    state = "paused" if made.paused else f"next at {local(made.next_at)}"
    click.echo(escaped(f"schedule {name} of queue {queue}: {state}"))


def _action(verb: str, queue: str, name: str) -> NewAction | None:
    return new_action(operator(), verb, queue=queue, schedule=name)


def _usage(act: Callable[[], Schedule]) -> Schedule:
    """Report an invalid option in one line."""
    try:
        return act()
    except ValueError as error:
        raise click.UsageError(escaped(str(error))) from None


@schedules.command()
@_name
@queue_option
@url_option
@click.pass_context
def remove(ctx: click.Context, name: str, queue: str) -> None:
    """Remove a schedule. Its tasks stay."""
    with open_queue(ctx.obj, queue) as opened:
        opened.unschedule(name, actor=operator())
    click.echo(escaped(f"schedule {name} is removed"))


@schedules.command()
@_name
@queue_option
@url_option
@click.pass_context
def pause(ctx: click.Context, name: str, queue: str) -> None:
    """Pause a schedule; no ticks are made, and none count as missed."""
    with open_queue(ctx.obj, queue) as opened:
        set_paused(opened.store, queue, name, True, _action("pause", queue, name))
    click.echo(escaped(f"schedule {name} is paused"))


@schedules.command()
@_name
@queue_option
@url_option
@click.pass_context
def resume(ctx: click.Context, name: str, queue: str) -> None:
    """Resume a paused schedule."""
    with open_queue(ctx.obj, queue) as opened:
        schedule = set_paused(opened.store, queue, name, False, _action("resume", queue, name))
    click.echo(escaped(f"schedule {name} is resumed: next at {local(schedule.next_at)}"))


@schedules.command()
@_name
@queue_option
@url_option
@click.pass_context
def run(ctx: click.Context, name: str, queue: str) -> None:
    """Enqueue a task of a schedule now, and print its id.

    This also works while the schedule is paused. It is not a tick: the schedule's times and counts do not change.
    """
    with open_queue(ctx.obj, queue) as opened:
        click.echo(run_now(opened.store, queue, name, _action("run", queue, name)))


@schedules.command()
@_name
@click.option(
    "--limit", type=click.IntRange(min=1), default=100, metavar="NUMBER", help="Show at most this many ticks."
)
@json_option
@queue_option
@url_option
@click.pass_context
def history(ctx: click.Context, name: str, limit: int, json: bool, queue: str) -> None:
    """Show the ticks of the last 30 days, newest first.

    A tick ran, was skipped because the task shown was unfinished, or was missed. Ticks that were missed together are
    one line with the time of the newest.
    """
    with open_queue(ctx.obj, queue) as opened:
        found = tick_infos(opened.store, queue, name, limit)
    if json:
        print_json([tick._asdict() for tick in found])
    elif found:
        table(("at", "outcome", "task"), [_tick_row(tick) for tick in found])
    else:
        note(f"schedule {name} has had no ticks in the last 30 days")


def _tick_row(tick: TickInfo) -> tuple[str, ...]:
    outcome = f"missed {counted(tick.missed, 'tick')}" if tick.outcome == "missed" else tick.outcome
    return local(tick.at), outcome, "" if tick.task is None else str(tick.task)


# -- without a database, or without a worker -------------------------------------------------------


@schedules.command("next")
@click.argument("expr", metavar="EXPR")
@click.option("--timezone", metavar="TZ", default="UTC", help="The time zone, such as Europe/Berlin.")
@click.option("-n", "number", type=click.IntRange(1, _MOST_NEXT), default=10, metavar="NUMBER", help="How many ticks.")
def next_ticks(expr: str, timezone: str, number: int) -> None:
    """Print a cron expression in words, and its next ticks.

    Each line after the first is a time with its offset. The effects of clock changes are printed to stderr. This needs
    no database.
    """
    try:
        words, timetable = in_words(expr), Timetable(cron=expr, timezone=timezone)
    except ValueError as error:
        raise click.UsageError(escaped(str(error))) from None
    now = clock.now()
    zone = _zone(timezone)
    lines, moment = [words], timetable.after(now)
    while moment is not None and len(lines) <= number:
        at = clock.to_datetime(moment)
        assert at is not None
        lines.append(at.astimezone(zone).isoformat())
        moment = timetable.after(moment)
    click.echo("\n".join(lines))
    for line in timetable.clock_changes(now):
        note(line)


def _zone(name: str) -> Any:
    if name == "UTC":
        return UTC
    import zoneinfo

    return zoneinfo.ZoneInfo(name)


@schedules.command()
@click.argument("target", metavar="MODULE:NAME")
@url_option
@click.pass_context
def sync(ctx: click.Context, /, target: str | None = None) -> None:
    """Store the schedules that a module declares, as its workers do when they start.

    MODULE:NAME is a TaskQueue, as for the command worker. The schedules of all its queues are stored. Schedules that it
    does not declare stay as they are.
    """
    opened: TaskQueue = find_queue(target, ctx)
    with opened if bound_to(ctx) is None else contextlib.nullcontext():
        names = opened.store_declarations()
    click.echo(escaped(f"{counted(len(names), 'schedule')} stored" + (f": {', '.join(names)}" if names else "")))
