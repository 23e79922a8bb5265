"""Random sequences of verbs on a real database, compared with the model. Invariants are checked after each step.

The invariant ``way_out`` is about the end and is checked once, after each sequence. On a SQLite file there are
schedules, too: their ticks are decided by this process's clock. On a server its own clock decides, which a test cannot
set, so the rules of schedules are left out there. Several handles fetch; some die,
some are closed, and their late holders keep calling verbs; the clock jumps forward and back. This takes some seconds
by default; ``--model-minutes=10`` runs more. In tests/processes real processes are killed. Here a worker dies when
its row gets a wrong start time, which is fast.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from engines import ENGINES, end_all_workers, execute
from helpers import until, with_option
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from model.model import FINAL, HELD, Model, Schedule

import dbtaskqueue
from dbtaskqueue import InvalidTransition, LeaseLost, RetryPolicy, TaskQueue
from dbtaskqueue._maintenance.clock_watch import ClockWatch
from dbtaskqueue._maintenance.decider import Decider
from dbtaskqueue._maintenance.heartbeat import ThreadHeartbeat
from dbtaskqueue._maintenance.rescuer import Rescuer
from dbtaskqueue._maintenance.ticker import Ticker
from dbtaskqueue._system import clock
from dbtaskqueue._worker import membership
from dbtaskqueue.schedules import UnknownSchedule, run_now, set_paused, tick_of

EPOCH = 1_800_000_000
HANDLES = 3
FOREVER = 10**6
CROWD = 5
"""At most so many tasks, so that each goes through many steps."""
SEQUENCES = {"sqlite": 60, "postgresql": 30, "mariadb": 15}
"""Sequences for each engine; servers are slower than files. Without ``--all-engines`` half as many are run."""
SCHEDULES = ("s", "t")
NAMES = st.sampled_from(["s", "s", "t"])
LATE = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 5, 8, 13])
"""Choose a claim by how many claims ago it was made: mostly a recent one, which may still be valid."""


class Database:
    """An empty database, in which workers can be made to look dead."""

    engine = "sqlite"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dbtaskqueue-model-"))
        url = self._stack.enter_context(ENGINES[self.engine](Path(directory)))
        self.url = with_option(url, "synchronous=NORMAL") if self.engine == "sqlite" else url

    def kill(self, worker: int) -> None:
        """Make this worker's process look dead to all others."""
        execute(self.url, "UPDATE dbtaskqueue_worker SET started = started + 1 WHERE id = %s", worker)

    def remove(self) -> None:
        end_all_workers()
        self._stack.close()


class Claim:
    """A Task that ``fetch`` returned, and the number of its holder."""

    def __init__(self, task: dbtaskqueue.Task, holder: int) -> None:
        self.task = task
        self.id, self.token, self.holder = task.id, task.token, holder
        self.is_ended = False


class Queue(RuleBasedStateMachine):
    """The database, the model, and the claims that handles have or had."""

    make = Database

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        clock.source = lambda: (EPOCH + self.model.now) * 1_000_000
        self.database = self.make()
        self.operator = TaskQueue(self.database.url)
        self.handles: dict[int, TaskQueue] = {}
        self.dead: dict[int, TaskQueue] = {}
        self.claims: list[Claim] = []
        self.accepted: set[int] = set()
        self.pruned: set[int] = set()
        self.seen: dict[int, tuple[str, int]] = {}
        self.retried: set[int] = set()
        for _ in range(HANDLES):
            self.new_handle()

    def new_handle(self) -> None:
        self.handles[max([0, *self.handles, *self.dead]) + 1] = TaskQueue(self.database.url, lease=3600)

    def pick(self, number: int) -> int:
        """Return the id of an existing task."""
        return sorted(self.model.tasks)[number % len(self.model.tasks)]

    def teardown(self) -> None:
        try:
            self.way_out()
        finally:
            self.claims.clear()
            for queue in (*self.handles.values(), *self.dead.values(), self.operator):
                queue.close()
            self.database.remove()

    # -- rules: producers and operators --------------------------------------------------------------

    @precondition(lambda self: len(self.model.tasks) < CROWD)
    @rule(
        priority=st.integers(-1, 1),
        delay=st.sampled_from([0, 0, 0, 30]),
        budget=st.sampled_from([None, 1, 2, 3]),
        retry=st.sampled_from([0, 10]),
        key=st.sampled_from([None, None, None, "a", "b"]),
    )
    def enqueue(self, priority: int, delay: int, budget: int | None, retry: int, key: str | None) -> None:
        policy = RetryPolicy(delay=retry, max_attempts=budget)
        task = self.operator.enqueue(priority=priority, start_in=delay, retry=policy, key=key)
        new = self.model.last_id + 1
        assert task.id == self.model.enqueue(
            new, priority=priority, delay=delay, budget=budget, retry=retry, key=key
        ), "ids increase, and a key that is taken returns its task"
        self.accepted.add(task.id)

    @precondition(lambda self: len(self.model.tasks) < CROWD)
    @rule(count=st.integers(1, 3))
    def enqueue_many(self, count: int) -> None:
        for task in self.operator.enqueue_many([None] * count, retry=RetryPolicy(delay=0, max_attempts=2)):
            assert task.id == self.model.last_id + 1
            self.model.enqueue(task.id, priority=0, delay=0, budget=2, retry=0, key=None)
            self.accepted.add(task.id)

    @precondition(lambda self: len(self.model.tasks) < CROWD)
    @rule(
        parents=st.lists(st.integers(0, 20), max_size=3),
        when=st.sampled_from(["done", "done", "ended", "failed"]),
        delay=st.sampled_from([0, 0, 30]),
        key=st.sampled_from([None, None, "a", "b"]),
        expires_in=st.sampled_from([None, None, 20, 100]),
    )
    def enqueue_child(self, parents: list[int], when: Any, delay: int, key: str | None, expires_in: int | None) -> None:
        after = sorted({self.pick(parent) for parent in parents}) if self.model.tasks else []
        policy = RetryPolicy(delay=10, max_attempts=2)
        task = self.operator.enqueue(
            retry=policy, start_in=delay, key=key, expires_in=expires_in, after=after, when=when
        )
        self.accepted.add(task.id)
        assert task.id == self.model.enqueue(
            task.id, delay=delay, budget=2, retry=10, key=key, expires_in=expires_in, after=after, when=when
        )

    @precondition(lambda self: 0 < len(self.model.tasks) < CROWD)
    @rule(pick=st.integers(0, 20), expires_in=st.sampled_from([None, 20]))
    def enqueue_before(self, pick: int, expires_in: int | None) -> None:
        child = self.pick(pick)
        found: list[int] = []

        def enqueue() -> None:
            policy = RetryPolicy(delay=0, max_attempts=1)
            found.append(self.operator.enqueue(retry=policy, before=child, expires_in=expires_in).id)

        refused = outcome(enqueue)
        id = found[0] if found else self.model.last_id + 1
        assert self.model.enqueue(id, budget=1, expires_in=expires_in, before=child) == (refused or id)
        self.accepted.update(found)

    @precondition(lambda self: self.model.tasks)
    @rule(pick=st.integers(0, 20))
    def cancel(self, pick: int) -> None:
        id = self.pick(pick)
        assert outcome(lambda: self.operator.cancel(id)) == self.model.cancel(id)

    @precondition(lambda self: self.model.tasks)
    @rule(pick=st.integers(0, 20))
    def retry(self, pick: int) -> None:
        id = self.pick(pick)
        self.retried.add(id)
        assert outcome(lambda: self.operator.retry(id)) == self.model.retry(id)
        self.retried |= self.model.revived
        self.model.revived.clear()

    @rule(verb=st.sampled_from(["prune", "pause", "close", "call_unheld", "purge"]), pick=st.integers(0, 20))
    def seldom(self, verb: str, pick: int) -> None:
        """Call a verb that must be rare, because it leaves few tasks for the others."""
        getattr(self, verb)(pick)

    def purge(self, pick: int) -> None:
        assert self.operator.purge() == self.model.purge()

    def prune(self, pick: int) -> None:
        count, removed = self.operator.prune(0), self.model.prune()
        assert count == len(removed)
        self.pruned |= removed

    def pause(self, pick: int) -> None:
        """Pause and resume, so that most fetches find a task."""
        self.operator.pause()
        self.model.paused = True
        self.fetch(pick, 1)
        self.operator.resume()
        self.model.paused = False

    # -- rules: holders ------------------------------------------------------------------------------

    @rule(pick=st.integers(0, 20), most=st.integers(1, 3))
    def fetch(self, pick: int, most: int) -> None:
        holder = sorted(self.handles)[pick % len(self.handles)]
        tasks = self.handles[holder].fetch(most, timeout=0)
        assert [task.id for task in tasks] == self.model.fetch(holder, most, set(self.dead))
        for task in tasks:
            self.no_early_child(task.id)
        self.claims += [Claim(task, holder) for task in tasks]

    @rule(pick=st.integers(0, 20), most=st.integers(1, 3))
    def fetch_and_start(self, pick: int, most: int) -> None:
        before = len(self.claims)
        self.fetch(pick, most)
        for _ in range(len(self.claims) - before):
            self.hold(len(self.claims) - before - 1, "start")

    @precondition(lambda self: self.claims)
    @rule(pick=LATE)
    def start(self, pick: int) -> None:
        self.hold(pick, "start")

    @precondition(lambda self: self.claims)
    @rule(pick=LATE)
    def finish(self, pick: int) -> None:
        self.hold(pick, "finish")

    @precondition(lambda self: self.claims)
    @rule(pick=LATE, retry=st.sampled_from([True, True, False]))
    def fail(self, pick: int, retry: bool) -> None:
        self.hold(pick, "fail", retry=retry)

    @precondition(lambda self: self.claims)
    @rule(pick=LATE, delay=st.sampled_from([0, 20]))
    def release(self, pick: int, delay: int) -> None:
        self.hold(pick, "release", delay=delay)

    def hold(self, pick: int, verb: str, retry: bool = True, delay: int = 0) -> None:
        """Call a holder's verb, in time or too late."""
        claim = self.claims[-1 - pick % len(self.claims)]
        expected = self.model.hold(verb, claim.id, claim.token, retry=retry, delay=delay)
        if verb == "start":
            started: list[bool] = []
            found = outcome(lambda: started.append(claim.task.start()))
            if started:
                found = "" if started[0] else "LeaseLost"
            if claim.is_ended:
                expected = "InvalidTransition"
        else:
            options = {"finish": (None,), "fail": ("an error",), "release": (delay,)}[verb]
            keywords = {"retry": retry} if verb == "fail" else {}
            found = outcome(lambda: getattr(claim.task, verb)(*options, **keywords))
            claim.is_ended = claim.is_ended or not found
        assert found == expected, f"{verb} of task {claim.id} with token {claim.token}"

    def call_unheld(self, pick: int) -> None:
        """Call a holder's verb on a Task that was never held."""
        if self.model.tasks:
            stranger = self.operator.get(self.pick(pick))
            assert outcome(stranger.finish) == outcome(stranger.start) == "InvalidTransition"

    @precondition(lambda self: self.claims)
    @rule(pick=LATE)
    def drop(self, pick: int) -> None:
        """Let the garbage collector drop a held Task."""
        if self.claims[-1 - pick % len(self.claims)].holder in self.dead:
            return  # a dead process collects no garbage
        claim = self.claims.pop(-1 - pick % len(self.claims))
        task = self.model.tasks.get(claim.id)
        if task is None or task.token != claim.token or task.state not in HELD:
            return
        running = task.state == "running"
        self.model.hold("fail" if running else "release", claim.id, claim.token, retry=True, delay=0)
        del claim
        until(lambda: self.operator.get(task.id).state == task.state, what="the end of a dropped claim")

    @rule(pick=st.integers(0, 20))
    def die(self, pick: int) -> None:
        """End a worker's process; its Task objects become late holders."""
        self.kill(sorted(self.handles)[pick % len(self.handles)])
        self.new_handle()

    def kill(self, holder: int) -> None:
        queue = self.dead[holder] = self.handles.pop(holder)
        if queue._membership.id is not None:
            self.database.kill(queue._membership.id)

    def close(self, pick: int) -> None:
        """Close a handle; running tasks stay held and can be finished."""
        holder = sorted(self.handles)[pick % len(self.handles)]
        if any(task.holder == holder and task.state == "running" for task in self.model.tasks.values()):
            return
        self.handles.pop(holder).close()
        self.model.close(holder)
        self.new_handle()

    # -- rules: time ---------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 15, 60, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.model.now += seconds

    @precondition(lambda self: not any(task.state in HELD for task in self.model.tasks.values()))
    @rule(seconds=st.sampled_from([2, 20, 3600]))
    def clock_is_set_back(self, seconds: int) -> None:
        """Handles check the clock about once a second: here right before and right after it is set back."""
        self.check_all()
        self.model.set_back(seconds)
        self.check_all()

    def check_all(self) -> None:
        for handle in self.handles.values():
            self.model.maintain(set(self.dead))
            handle._membership.maintain()

    # -- the invariants, by their names --------------------------------------------------------------

    @invariant()
    def all_invariants(self) -> None:
        """Check all invariants; ``token_rises`` comes last because it stores what was seen."""
        self.tasks = {task.id: task for task in self.operator.tasks(limit=10_000)}
        self.as_the_model_says()
        self.one_holder()
        self.final_is_final()
        self.acknowledged_exists()
        self.attempts_bounded()
        self.drain_is_free()
        self.no_orphan()
        self.token_rises()

    def as_the_model_says(self) -> None:
        tasks = self.tasks
        assert set(tasks) == set(self.model.tasks)
        for id, expected in self.model.tasks.items():
            found = tasks[id]
            assert (found.state, found.token, found.attempt, found.max_attempts, found.key, found.cancel_requested) == (
                (expected.state, expected.token, expected.attempt, expected.max_attempts, expected.key, expected.asked)
            ), f"task {id}"
            if expected.state == "failed" or expected.state == "pending":
                assert found.start_at.timestamp() == EPOCH + expected.due, f"task {id} is due"
            assert (found.finished_at is None) == (expected.finished is None)
            expires = None if found.expires_at is None else found.expires_at.timestamp() - EPOCH
            assert expires == expected.expires, f"task {id} expires"
            attempts = [[attempt.number, attempt.token, attempt.outcome] for attempt in found.attempts()]
            assert attempts == expected.attempts, f"task {id}"
        counts = self.operator.stats()
        for state in ("pending", "reserved", "running", "failed"):  # final counts may be old
            assert getattr(counts, state) == sum(task.state == state for task in self.model.tasks.values())

    def one_holder(self) -> None:
        valid = [
            claim.id
            for claim in self.claims
            if claim.id in self.tasks
            and self.tasks[claim.id].state in HELD
            and self.tasks[claim.id].token == claim.token
        ]
        assert len(valid) == len(set(valid))

    def final_is_final(self) -> None:
        for id, (state, _) in self.seen.items():
            if state in FINAL and id in self.tasks and id not in self.retried:
                assert self.tasks[id].state == state

    def acknowledged_exists(self) -> None:
        assert self.accepted | self.model.made == set(self.tasks) | self.pruned

    def token_rises(self) -> None:
        for id, task in self.tasks.items():
            assert task.token >= self.seen.get(id, ("", 0))[1]
        self.seen = {id: (task.state, task.token) for id, task in self.tasks.items()}
        self.retried.clear()

    def attempts_bounded(self) -> None:
        assert all(t.max_attempts is None or t.attempt <= t.max_attempts for t in self.tasks.values())

    def drain_is_free(self) -> None:
        for task in self.tasks.values():
            assert task.attempt == sum(attempt.outcome != "released" for attempt in task.attempts())

    def no_early_child(self, id: int) -> None:
        """Check that the parents of a task that was just claimed have ended as it wants."""
        states = [parent.state for parent in self.operator.store.parent_states(id)]
        assert all(state in (None, *FINAL) for state in states)
        when = self.model.tasks[id].when
        if when == "done":
            assert set(states) <= {"done", None}
        elif when == "failed" and states:
            assert set(states) != {"done"}

    def no_orphan(self) -> None:
        """A gate counts its open edges, and an unfinished task is blocked as long as its gate is open."""
        for id, expected in self.model.tasks.items():
            ends = [met for (_, child), met in self.model.edges.items() if child == id]
            is_blocked = self.model.is_blocked(expected)
            assert self.tasks[id]._record.blocked == int(is_blocked) or expected.state in FINAL
            if not ends:
                assert not is_blocked
                continue
            gate = self.operator.store.gate(id)
            assert gate is not None
            assert (gate.total, gate.open) == (len(ends), ends.count(None))
            edges = {edge.parent: edge.met for edge in self.operator.store.parents(id, 100)}
            assert edges == {
                parent: None if met is None else int(met)
                for (parent, child), met in self.model.edges.items()
                if child == id
            }
            assert is_blocked == (expected.state not in FINAL and None in ends)
        assert self.operator.stats().blocked == sum(map(self.model.is_blocked, self.model.tasks.values()))

    def way_out(self) -> None:
        """Once workers run, every task reaches a final state, even those of dead workers."""
        for holder in list(self.handles):
            self.kill(holder)
        self.operator.resume()
        with TaskQueue(self.database.url) as queue:
            for _ in range(3):
                self.model.now += FOREVER
                while tasks := queue.fetch(100, timeout=0):
                    for task in tasks:
                        with task:
                            pass
                    del task, tasks
        assert all(task.state in FINAL for task in self.operator.tasks(limit=10_000))


class ScheduledQueue(Queue):
    """The same with schedules. Any handle's maintenance makes their ticks."""

    def __init__(self) -> None:
        super().__init__()
        self.function = self.operator.task(name="of a schedule")(lambda: None)
        self.ticked: dict[tuple[str, int], int] = {}
        self.due: set[tuple[str, int]] = set()
        self.inherited: dict[str, set[tuple[str, int]]] = {}

    # -- rules ---------------------------------------------------------------------------------------

    @rule(
        name=NAMES,
        every=st.sampled_from([1, 60, 60, 600]),
        overlap=st.sampled_from(["skip", "allow", "queue", "queue", "replace", "replace"]),
        catch_up=st.sampled_from(["latest", "latest", "all", "none"]),
        key=st.sampled_from([None, None, None, "a"]),
        expires_in=st.sampled_from([None, None, 20]),
    )
    def schedule(
        self, name: str, every: int, overlap: Any, catch_up: Any, key: str | None, expires_in: int | None
    ) -> None:
        """Declare a schedule, or change it."""
        window = 2 * every
        options = {"retry": RetryPolicy(delay=10, max_attempts=2), "key": key, "expires_in": expires_in}
        target = self.function.using(**{name: value for name, value in options.items() if value is not None}).bind()
        if name not in self.model.schedules:
            self.inherited[name] = {tick for tick in self.model.ticks if tick[0] == name}
        self.operator.schedule(name, target, every=every, overlap=overlap, catch_up=catch_up, window=window)
        self.model.schedule(name, Schedule(every, overlap, catch_up, window, key, expires_in))

    @precondition(lambda self: self.model.schedules)
    @rule(
        name=NAMES,
        verb=st.sampled_from(["unschedule", "pause", "pause", "resume", "resume", "run"]),
        after=st.sampled_from([0, 60]),
    )
    def operate(self, name: str, verb: str, after: int) -> None:
        """Call one of an operator's verbs for schedules, also while a tick is due."""
        self.time_passes(after)
        self.note_due()
        getattr(self, f"{verb}_schedule")(name)

    def unschedule_schedule(self, name: str) -> None:
        assert outcome(lambda: self.operator.unschedule(name)) == self.model.unschedule(name)
        self.due -= {tick for tick in self.due if tick[0] == name}

    def pause_schedule(self, name: str) -> None:
        paused = outcome(lambda: set_paused(self.operator.store, self.operator.name, name, True))
        assert paused == self.model.pause_schedule(name, True)

    def resume_schedule(self, name: str) -> None:
        resumed = outcome(lambda: set_paused(self.operator.store, self.operator.name, name, False))
        assert resumed == self.model.pause_schedule(name, False)

    def run_schedule(self, name: str) -> None:
        found: list[int] = []
        refused = outcome(lambda: found.append(run_now(self.operator.store, self.operator.name, name)))
        assert self.model.run_schedule(name) == (refused or found[0])

    @precondition(lambda self: self.model.schedules)
    @rule(pick=st.integers(0, 20), seconds=st.sampled_from([1, 60, 60, 600]), times=st.integers(1, 3))
    def ticks_come(self, pick: int, seconds: int, times: int) -> None:
        """Let time pass, and let one handle after the other do what its maintenance does at intervals."""
        for turn in range(times):
            self.time_passes(seconds)
            self.note_due()
            self.maintain(pick + turn)

    @rule(pick=st.integers(0, 20), overlap=st.sampled_from(["queue", "queue", "replace", "skip"]))
    def ticks_pile_up(self, pick: int, overlap: str) -> None:
        """Make three ticks of a schedule while nobody ends a task, and pause it when the fourth is due."""
        self.schedule("s", 60, overlap, "latest", None, None)
        self.resume_schedule("s")
        self.ticks_come(pick, 60, 3)
        self.operate("s", "pause", 60)
        self.resume_schedule("s")

    @rule(pick=st.integers(0, 20))
    def maintain(self, pick: int) -> None:
        self.model.maintain(set(self.dead))
        self.handles[sorted(self.handles)[pick % len(self.handles)]]._membership.maintain()
        self.next_at_is_later()

    @precondition(lambda self: self.model.schedules and not any(t.state in HELD for t in self.model.tasks.values()))
    @rule(forward=st.sampled_from([0, 60, 3600]), back=st.sampled_from([2, 20, 3600]))
    def clock_jumps(self, forward: int, back: int) -> None:
        """Set the clock forward and then back."""
        self.model.now += forward
        self.note_due()
        self.clock_is_set_back(back)

    def check_all(self) -> None:
        super().check_all()
        self.next_at_is_later()

    def note_due(self) -> set[tuple[str, int]]:
        """Note the ticks that are due now, and return them."""
        due = {(name, at) for name, schedule in self.model.schedules.items() for at in schedule.due(self.model.now)}
        self.due |= due
        return due

    # -- invariants ----------------------------------------------------------------------------------

    @invariant()
    def all_invariants_of_schedules(self) -> None:
        """Check all invariants of schedules."""
        self.schedules_are_as_the_model_says()
        self.tick_once()
        self.each_due_tick_has_a_row()
        self.counters_agree_with_rows()

    def schedules_are_as_the_model_says(self) -> None:
        found = {schedule.name: schedule for schedule in self.operator.schedules()}
        assert set(found) == set(self.model.schedules)
        for name, expected in self.model.schedules.items():
            schedule = found[name]
            assert (schedule.every, schedule.overlap, schedule.catch_up, schedule.paused) == (
                (expected.every, expected.overlap, expected.catch_up, expected.paused)
            ), name
            assert (seconds(schedule.next_at), seconds(schedule.last_at)) == (expected.next_at, expected.last_at), name
            assert (schedule.last_task, schedule.skipped, schedule.missed) == (
                (expected.last_task, expected.skipped, expected.missed)
            ), name
        self.rows = {
            (tick.schedule, tick.at // 1_000_000 - EPOCH): (tick.outcome, tick.task, tick.missed)
            for name in SCHEDULES
            for tick in self.operator.store.ticks(self.operator.name, name, 10_000)
        }
        assert self.rows == self.model.ticks

    def tick_once(self) -> None:
        """Each tick makes at most one task, and its row names that."""
        for id, task in self.tasks.items():
            tick = tick_of(task._record.options)
            place = None if tick is None else (tick.schedule, seconds(tick.at))
            assert place == self.model.tasks[id].tick
            if place is not None:
                assert self.ticked.setdefault(place, id) == id
                assert self.rows[place][:2] == ("ran", id)

    def each_due_tick_has_a_row(self) -> None:
        """Each tick that is over has a row, or the newest of those that were missed together has one for all."""
        for name, at in self.due - self.note_due():
            row = self.model.missed.get((name, at), at)
            assert (name, row) in self.rows, (name, at)

    def counters_agree_with_rows(self) -> None:
        for schedule in self.operator.schedules():
            inherited = self.inherited[schedule.name]
            rows = [row for tick, row in self.rows.items() if tick[0] == schedule.name and tick not in inherited]
            assert schedule.skipped == sum(outcome == "skipped" for outcome, _, _ in rows)
            assert schedule.missed == sum(missed for _, _, missed in rows)

    def next_at_is_later(self) -> None:
        """After the maintenance, the next tick of a schedule is the first one after now."""
        for schedule in self.operator.schedules():
            next_at = seconds(schedule.next_at)
            assert schedule.every is not None
            assert next_at is not None
            assert schedule.paused or self.model.now < next_at <= self.model.now + schedule.every
            assert next_at % schedule.every == 0


@pytest.fixture(autouse=True)
def _no_background_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make steps repeatable: rescue runs in steps and not in a thread, and no process sends heartbeats."""
    monkeypatch.setattr(membership, "HeartbeatProcess", ThreadHeartbeat)
    monkeypatch.setattr(Rescuer, "interval", 3600.0)
    for duty in (ClockWatch, Decider):
        monkeypatch.setattr(duty, "interval", 3600.0)
    monkeypatch.setattr(Ticker, "__call__", lambda ticker: setattr(ticker, "interval", 3600.0))
    monkeypatch.setattr(clock, "source", clock.source)  # each state machine sets its own


def seconds(moment: datetime | None) -> int | None:
    """Return a moment of the model's clock."""
    return None if moment is None else round(moment.timestamp()) - EPOCH


def outcome(act: Callable[[], object]) -> str:
    """Return the name of the documented exception that it raises, or ""."""
    try:
        act()
    except (InvalidTransition, LeaseLost, UnknownSchedule) as error:
        return type(error).__name__
    return ""


def test_random_sequences_of_verbs(
    request: pytest.FixtureRequest, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Database, "engine", engine)
    machine = ScheduledQueue if engine == "sqlite" else Queue
    minutes = float(request.config.getoption("--model-minutes"))
    sequences = SEQUENCES[engine] // (1 if request.config.option.all_engines else 2)
    few = settings(max_examples=sequences, stateful_step_count=60, deadline=None, database=None)
    few = settings(few, suppress_health_check=list(HealthCheck))
    if not minutes:
        run_state_machine_as_test(machine, settings=few)
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        run_state_machine_as_test(machine, settings=settings(few, max_examples=100, stateful_step_count=100))
