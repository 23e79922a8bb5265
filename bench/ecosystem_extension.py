"""What an extension costs: a worker and a producer with one that does nothing, against the same without one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from . import databases
from .harness import Bench, Row, ratios
from .processes import run_child

Seconds = dict[str, dict[str, list[float]]]
TASKS = 2_000
"""Tasks in each of the short rounds, which take turns: so the machine's load is the same for all."""
ROUNDS = 30
KINDS = "none", "empty", "full"
_TARGET = 0.97


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row for running tasks and one for enqueueing."""
    bench.say("an extension that does nothing")
    rounds = bench.some(ROUNDS)
    found = [_once(bench, rounds) for _ in range(bench.repeats)]
    for what, title, tasks in (("run", "one worker", TASKS), ("enqueue", "enqueue, one by one", TASKS // 10)):
        none, empty, full = ([seconds[kind][what][0] for seconds in found] for kind in KINDS)
        cpu = [[seconds[kind][what][1] for seconds in found] for kind in KINDS]
        rates = [f"{rounds * tasks / statistics.median(values):,.0f}/s" for values in (empty, none)]
        yield Row(
            "ecosystem",
            f"{title}: an extension that overrides nothing, against none",
            ratios(none, empty),
            "×",
            _TARGET,
            at_least=True,
            details=(
                f"{rates[0]} against {rates[1]}; by CPU time {statistics.median(ratios(cpu[0], cpu[1])):.3f} ×;"
                f" one that overrides every method {statistics.median(ratios(none, full)):.2f} ×"
            ),
        )


def _once(bench: Bench, rounds: int) -> Seconds:
    """Return the seconds of wall time and of CPU time, for each kind of extension."""
    with databases.fresh(bench, databases.ours(bench, 1)) as path:
        found: Seconds = run_child("extended_worker.py", databases.url(path, "NORMAL"), rounds, TASKS)
        return found
