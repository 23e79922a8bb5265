"""What an extension costs: a worker and a producer with one that does nothing, against the same without one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from . import databases
from .harness import Bench, Row, rate, ratios
from .processes import run_child

Rates = dict[str, list[float]]
TASKS = 50_000
KINDS = "none", "empty", "full"
_TARGET = 0.97


def measure(bench: Bench) -> Iterator[Row]:
    """Yield a row for running tasks and one for enqueueing."""
    bench.say("an extension that does nothing")
    found: dict[str, list[Rates]] = {kind: [] for kind in KINDS}
    for repeat in range(2 * bench.repeats):  # the ratios are close to 1
        for kind in KINDS if repeat % 2 else reversed(KINDS):
            found[kind].append(_once(bench, kind))
    for what, title in (("run", "one worker"), ("enqueue", "enqueue, one by one")):
        none, empty, full = ([rates[what][0] for rates in found[kind]] for kind in KINDS)
        cpu = {kind: [rates[what][1] for rates in found[kind]] for kind in KINDS}
        yield Row(
            "ecosystem",
            f"{title}: an extension that overrides nothing, against none",
            ratios(empty, none),
            "×",
            _TARGET,
            at_least=True,
            details=(
                f"{rate(empty)} against {rate(none)}; by CPU time {_ratio(cpu, 'empty'):.2f} ×;"
                f" one that overrides every method {statistics.median(ratios(full, none)):.2f} ×, by CPU time"
                f" {_ratio(cpu, 'full'):.2f} ×"
            ),
        )


def _ratio(cpu: dict[str, list[float]], kind: str) -> float:
    return statistics.median(ratios(cpu[kind], cpu["none"]))


def _once(bench: Bench, kind: str) -> Rates:
    """Return the tasks that a worker runs and that a producer enqueues, for a second of wall time and of CPU time."""
    tasks = bench.some(TASKS)
    with databases.fresh(bench, databases.ours(bench, tasks)) as path:
        found: Rates = run_child("extended_worker.py", databases.url(path, "NORMAL"), tasks, kind)
        return found
