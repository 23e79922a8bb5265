"""Random DAGs against a model, while workers are killed: each task ends as the model says, and starts in time.

First, everything runs to its end, and an operator cancels some tasks at any moment. Then the operator retries some
that have ended, among them tasks that fail until they are retried, and everything runs to its end again.
``--flow-seconds=60`` and more is the full size.
"""

from __future__ import annotations

import random
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import until
from processes.flow.referee import EAGER, Crew, Watch, all_final, check_tables, no_early_child
from processes.oracle import runs_of

from dbtaskqueue import InvalidTransition, Task, TaskQueue

TASKS = 60
PARENTS = 4
"""The most parents of a task."""
DOES = [*["nothing"] * 6, "fail", "fail until retried", "fail until retried", "fail once", "commit"]
WHEN = ["done", "done", "done", "ended", "failed"]


class Plan(NamedTuple):
    """What a task does, and for whom it waits: positions of earlier tasks."""

    does: str
    parents: list[int]
    when: str


class Model:
    """How tasks end. ``by_operator``: cancelled for its own sake. ``for_parents``: cancelled for that of a parent."""

    def __init__(self, plans: list[Plan]) -> None:
        self.plans = plans
        self.states: list[str | None] = [None] * len(plans)
        self.met: dict[tuple[int, int], bool | None] = {
            (parent, child): None for child, plan in enumerate(plans) for parent in plan.parents
        }
        self.is_retried = False

    def cancelled_by_operator(self, number: int) -> None:
        self.states[number] = "by_operator"

    def settle(self) -> None:
        """End all tasks that have not ended, oldest first."""
        for number, plan in enumerate(self.plans):
            for parent in plan.parents:
                if self.met[parent, number] is None:
                    is_done = self.states[parent] == "done"
                    self.met[parent, number] = plan.when == "ended" or is_done == (plan.when == "done")
            if self.states[number] is None:
                self.states[number] = self._end_of(number, plan)

    def _end_of(self, number: int, plan: Plan) -> str:
        met = [self.met[parent, number] for parent in plan.parents]
        if met and (not any(met) if plan.when == "failed" else not all(met)):
            return "for_parents"
        fails = plan.does == "fail" or (plan.does == "fail until retried" and not self.is_retried)
        return "abandoned" if fails else "done"

    def retry(self, number: int) -> bool:
        """Retry a task that has ended; return False if a parent forbids it."""
        plan = self.plans[number]
        met = [self.met[parent, number] for parent in plan.parents]
        if (plan.when == "done" and False in met) or (plan.when == "failed" and met and not {None, True} & {*met}):
            return False
        self._reopen(number)
        self.states[number] = None
        return True

    def _reopen(self, parent: int) -> None:
        for child, plan in enumerate(self.plans):
            if parent not in plan.parents or self.met[parent, child] is None:
                continue
            self.met[parent, child] = None
            forbidden = plan.when == "done" and any(self.met[other, child] is False for other in plan.parents)
            if self.states[child] == "for_parents" and not forbidden:
                self.states[child] = None
                self._reopen(child)


def random_plans(random: random.Random) -> list[Plan]:
    plans = []
    for number in range(TASKS):
        parents = random.sample(range(number), random.randint(0, min(number, PARENTS)))
        plans.append(Plan(random.choice(DOES), parents, random.choice(WHEN)))
    return plans


def found(task: Task) -> str:
    state = str(task.refresh().state)
    if state != "cancelled":
        return state
    # a task that an operator cancels between two attempts has the error of the first one
    return "for_parents" if (task.error or "").startswith("cancelled, since") else "by_operator"


@pytest.fixture
def seed() -> int:
    return random.randrange(2**32)


def test_random_dags_end_as_the_model_says(url: str, tmp_path: Path, seconds: float, seed: int) -> None:
    print(f"seed {seed}")  # shown if the test fails
    chance = random.Random(seed)
    with TaskQueue(url, retry=EAGER) as queue, Crew(url, tmp_path) as crew, Watch(url):
        deadline = time.monotonic() + seconds
        rounds = 0
        while rounds == 0 or time.monotonic() < deadline:
            run_one(queue, crew, tmp_path, chance)
            rounds += 1
        check_tables(url)
        print(f"{rounds} rounds, {crew.kills} kills")


def run_one(queue: TaskQueue, crew: Crew, directory: Path, chance: random.Random) -> None:
    plans = random_plans(chance)
    model = Model(plans)
    (directory / "retried").unlink(missing_ok=True)
    with queue.flow() as flow:
        nodes = []
        for does, parents, when in plans:
            after = [nodes[parent] for parent in parents]
            nodes.append(flow.add({"do": does, "seconds": chance.choice([0, 0.01])}, after=after, when=when))
    tasks = [node.task for node in nodes]
    for number in chance.sample(range(TASKS), 4):
        time.sleep(chance.uniform(0, 0.1))
        with suppress(InvalidTransition):  # it has ended
            queue.cancel(tasks[number].id, running=False)
        if chance.random() < 0.5:
            crew.kill()
    until(lambda: all_final(tasks), within=120, what="the end of all tasks")
    for number, task in enumerate(tasks):  # a cancel may come too late; how it ended is given
        if found(task) == "by_operator":
            model.cancelled_by_operator(number)
    compare(model, tasks)
    # the code of a task that was cancelled in a batch may still run
    ended = [number for number, state in enumerate(model.states) if state != "by_operator"]
    children = {
        tasks[child].id: [tasks[parent].id for parent in plan.parents if parent in ended]
        for child, plan in enumerate(plans)
    }
    no_early_child(crew.log, children)
    first_runs = runs_of(crew.log)
    before = {task.id: len(first_runs.get(task.id, ())) for task in tasks}
    retry_some(queue, model, tasks, chance)
    (directory / "retried").touch()
    model.is_retried = True
    queue.resume()
    crew.kill()
    until(lambda: all_final(tasks), within=120, what="the end of all tasks, again")
    compare(model, tasks)
    runs = runs_of(crew.log)
    for child, parents in children.items():  # only what ran again: the earlier runs were judged
        for run in runs.get(child, [])[before[child] :]:
            for parent in parents:
                for other in runs.get(parent, [])[before[parent] :]:
                    assert other.start < run.start, f"task {parent} started after its child {child}"


def retry_some(queue: TaskQueue, model: Model, tasks: list[Task], chance: random.Random) -> None:
    """Retry some tasks at the same time: the queue is paused meanwhile."""
    queue.pause()
    for number in chance.sample(range(TASKS), 10):
        if model.states[number] is None:
            continue  # revived already
        allowed = model.retry(number)
        with nullcontext() if allowed else pytest.raises(InvalidTransition):
            queue.retry(tasks[number].id)
    for number, task in enumerate(tasks):
        is_unfinished = str(task.refresh().state) == "pending"
        assert is_unfinished == (model.states[number] is None), f"{task} {model.states[number]} {model.plans[number]}"


def compare(model: Model, tasks: list[Task]) -> None:
    """Compare all tasks with the model."""
    model.settle()
    differences = [
        (task.id, found(task), wanted, plan)
        for task, wanted, plan in zip(tasks, model.states, model.plans, strict=True)
        if found(task) != wanted
    ]
    assert not differences
