"""A model of the contract: what each verb does to a task, written from the design page and not from the code.

Times are seconds of the model's own clock. Its zero is a tick of every schedule. A method returns what the verb would
return, or the name of the exception that it raises. Only one queue is modelled. A holder is a number that the test
gives to each handle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

FINAL = ("done", "cancelled", "abandoned")
CLAIMABLE = ("pending", "failed")
HELD = ("reserved", "running")


@dataclass
class Task:
    """A task. ``decided`` is when its due time was set, ``base`` its attempts at the last operator's retry.

    ``when`` and ``start_in``: of a child; None if its due time does not depend on its parents. ``blocked``: a parent
    has not ended. ``disappointed``: it was cancelled for the sake of a parent. ``expires``: no attempt starts from then
    on. ``tick``: the schedule and the moment.
    """

    id: int
    priority: int
    due: int
    decided: int
    budget: int | None
    delay: int
    key: str | None
    state: str = "pending"
    token: int = 0
    attempt: int = 0
    base: int = 0
    lost: int = 0
    holder: int | None = None
    asked: bool = False
    finished: int | None = None
    attempts: list[list[object]] = field(default_factory=list)  # number, token, outcome
    when: str = "done"
    start_in: int | None = 0
    blocked: bool = False
    disappointed: bool = False
    expires: int | None = None
    tick: tuple[str, int] | None = None

    @property
    def max_attempts(self) -> int | None:
        return None if self.budget is None else self.base + self.budget

    def leave(self, state: str, now: int, outcome: str | None = None, *, fence: bool = False) -> None:
        """Change to a state without a holder."""
        if self.state == "running":
            self.attempts[-1][2] = outcome
        self.state, self.holder, self.token = state, None, self.token + fence
        self.finished = now if state in FINAL else None

    def fail(self, now: int, outcome: str | None, due: int | None, *, retry: bool = True, fence: bool = False) -> None:
        """End a failed attempt, for any reason."""
        spent = not retry or (self.max_attempts is not None and self.attempt >= self.max_attempts)
        again = now + self.delay * (self.attempt - self.base) if due is None else due
        late = self.expires is not None and again >= self.expires
        state = "cancelled" if self.asked else "abandoned" if spent or late else "failed"
        if state == "failed":
            self.due = again
        self.decided = now
        self.leave(state, now, "cancelled" if self.asked else outcome or state, fence=fence)


@dataclass
class Schedule:
    """A schedule with an interval. ``key`` and ``expires_in``: of its tasks."""

    every: int
    overlap: str
    catch_up: str
    window: int
    key: str | None
    expires_in: int | None
    next_at: int = 0
    paused: bool = False
    last_at: int | None = None
    last_task: int | None = None
    skipped: int = 0
    missed: int = 0

    def after(self, moment: int) -> int:
        """Return the first tick later than this."""
        return (moment // self.every + 1) * self.every

    def due(self, now: int) -> list[int]:
        """Return the ticks that are due and that nobody has made."""
        return [] if self.paused else list(range(self.next_at, now + 1, self.every))

    def made(self, due: list[int], now: int) -> list[int]:
        """Return which of the due ticks are made; the others are missed."""
        if self.catch_up == "all":
            return [at for at in due if at >= now - self.window]
        return [at for at in due[-1:] if self.catch_up == "latest" or at >= now - 60]


class Model:
    """All tasks and schedules of a queue.

    ``edges``: for each parent and child, None until the parent has ended, then whether it ended as the child wants.
    ``revived``: the tasks that an operator's retry of another one has revived.
    ``ticks``: for each schedule and moment, the outcome, the task, and how many were missed. They outlive the schedule.
    ``missed``: for each schedule and missed tick, the moment of its row.
    """

    def __init__(self) -> None:
        self.now = 0
        self.tasks: dict[int, Task] = {}
        self.edges: dict[tuple[int, int], bool | None] = {}
        self.revived: set[int] = set()
        self.paused = False
        self.schedules: dict[str, Schedule] = {}
        self.ticks: dict[tuple[str, int], tuple[str, int | None, int]] = {}
        self.missed: dict[tuple[str, int], int] = {}
        self.last_id = 0
        self.made: set[int] = set()

    def enqueue(
        self,
        id: int,
        *,
        priority: int = 0,
        delay: int = 0,
        budget: int | None,
        retry: int = 0,
        key: str | None = None,
        expires_in: int | None = None,
        after: Sequence[int] = (),
        when: str = "done",
        before: int | None = None,
    ) -> int | str:
        """Return the id of the task that has the key, or of the new task, or the name of the exception."""
        if before is not None and not self.is_blocked(self.tasks[before]):
            return "InvalidTransition"
        for task in self.tasks.values():
            if key is not None and task.key == key and task.state not in FINAL:
                return task.id
        self.last_id = max(self.last_id, id)
        task = self.tasks[id] = Task(id, priority, self.now + delay, self.now, budget, retry, key)
        task.when, task.start_in = when, delay
        task.expires = None if expires_in is None else self.now + expires_in
        task.blocked = any(self.tasks[parent].state not in FINAL for parent in after)
        self.edges |= dict.fromkeys([(parent, id) for parent in after], None)
        if before is not None:
            self.edges[id, before] = None
        self._settle([task])
        return id

    def fetch(self, holder: int, most: int, dead: set[int]) -> list[int]:
        """Return the ids that are reserved. If none is due, do what the maintenance does first."""
        while not (claimed := self._claim(holder, most)):
            if not self.maintain(dead):
                return []
        return claimed

    def maintain(self, dead: set[int]) -> int:
        """Rescue the tasks of dead workers, expire tasks and make ticks; return how many there were."""
        return self.rescue(dead) + self.expire() + self.make_ticks()

    def _claim(self, holder: int, most: int) -> list[int]:
        due = [
            task
            for task in self.tasks.values()
            if task.state in CLAIMABLE and task.due <= self.now and not task.blocked and not self._is_late(task)
        ]
        due.sort(key=lambda task: (-task.priority, task.due, task.id))
        claimed = [] if self.paused else due[:most]
        for task in claimed:
            task.state, task.holder, task.token = "reserved", holder, task.token + 1
        return [task.id for task in claimed]

    def rescue(self, dead: set[int]) -> int:
        """Rescue the tasks of dead workers; return how many."""
        lost = [task for task in self.tasks.values() if task.state in HELD and task.holder in dead]
        for task in lost:
            if task.state == "reserved":
                task.leave("pending", self.now, fence=True)
            else:
                task.lost += 1
                task.fail(self.now, "lost", self.now if task.lost == 1 else None, fence=True)
        self._settle()
        return len(lost)

    def hold(self, verb: str, id: int, token: int, **options: int | bool) -> str:
        """Apply a holder's verb with this token. Return "" or the name of the exception."""
        task = self.tasks.get(id)
        if task is None or task.token != token:
            return "LeaseLost"
        if task.state not in {"start": ("reserved",), "release": HELD}.get(verb, ("running",)):
            return "InvalidTransition"
        if verb == "start" and self._is_late(task):
            task.leave("abandoned", self.now, fence=True)
            self._settle()
            return "LeaseLost"
        if verb == "start":
            task.state, task.attempt = "running", task.attempt + 1
            task.attempts.append([task.attempt, token, None])
        elif verb == "finish":
            task.leave("done", self.now, "done")
        elif verb == "fail":
            task.fail(self.now, None, None, retry=bool(options["retry"]))
        elif task.asked:
            task.leave("cancelled", self.now, "cancelled")
        else:
            task.attempt -= task.state == "running"
            task.due, task.decided = self.now + options["delay"], self.now
            task.leave("pending", self.now, "released")
        self._settle()
        return ""

    def close(self, holder: int) -> None:
        """Close a handle: its reserved tasks are released and keep their due time."""
        for task in self.tasks.values():
            if task.holder == holder and task.state == "reserved":
                task.leave("pending", self.now)

    def cancel(self, id: int) -> str:
        """Cancel a task, as anyone may."""
        task = self.tasks[id]
        if task.state == "running":
            task.asked = True
        elif task.state in ("done", "abandoned"):
            return "InvalidTransition"
        elif task.state != "cancelled":
            task.leave("cancelled", self.now, fence=True)
            self._settle()
        return ""

    def retry(self, id: int) -> str:
        """Retry a task, as an operator does."""
        task = self.tasks[id]
        same = [t for t in self.tasks.values() if t.key and t.key == task.key and t.id != id and t.state not in FINAL]
        if task.state not in (*FINAL, "failed") or same:
            return "InvalidTransition"
        was = task.state
        if was in FINAL and (
            self._is_hopeless(task) or (was == "done" and any(map(self._has_begun, self._children(id))))
        ):
            return "InvalidTransition"
        self._start_again(task)
        task.due = task.decided = self.now
        task.blocked = None in self._ends(task)
        if was in FINAL:
            self._reopen(id)
        return ""

    def _start_again(self, task: Task) -> None:
        task.leave("pending", self.now, fence=True)
        task.base, task.lost, task.asked = task.attempt, 0, False
        task.expires, task.disappointed = None, False

    # -- parents and expiry ------------------------------------------------------------------------

    def is_blocked(self, task: Task) -> bool:
        return task.blocked and task.state not in FINAL

    def _children(self, id: int) -> list[Task]:
        """Return the children that the end of this parent has decided."""
        return [
            self.tasks[child] for (parent, child), met in sorted(self.edges.items()) if parent == id and met is not None
        ]

    def _has_begun(self, task: Task) -> bool:
        return task.state in ("running", "failed") or (task.attempt > task.base and task.state not in FINAL)

    def _ends(self, task: Task) -> list[bool | None]:
        return [met for (_, child), met in self.edges.items() if child == task.id]

    def _is_hopeless(self, task: Task) -> bool:
        """Return whether the task can never start, as far as its parents exist."""
        ends = self._ends(task)
        if task.when == "failed":
            return bool(ends) and None not in ends and True not in ends
        return any(
            met is False and parent in self.tasks for (parent, child), met in self.edges.items() if child == task.id
        )

    def _settle(self, new: Sequence[Task] = ()) -> None:
        """Decide the children of all tasks that have ended."""
        is_changed = True
        while is_changed:
            is_changed = False
            for (parent, child), met in self.edges.items():
                state = self.tasks[parent].state if parent in self.tasks else ""
                if met is None and state in FINAL:
                    when = self.tasks[child].when
                    self.edges[parent, child] = when == "ended" or (state == "done") == (when == "done")
                    is_changed = True
            for task in self.tasks.values():
                is_changed = self._settle_one(task, is_new=task in new) or is_changed

    def _settle_one(self, task: Task, *, is_new: bool) -> bool:
        if task.state in FINAL or not (task.blocked or is_new) or not (ends := self._ends(task)):
            return False
        if self._is_hopeless(task):
            task.leave("cancelled", self.now, fence=True)
            task.disappointed = True
            return True
        if None in ends or not task.blocked:
            return False
        task.blocked = False
        task.due = task.due if task.start_in is None else self.now + task.start_in
        task.decided = self.now
        return True

    def _reopen(self, id: int) -> None:
        """Let the children of a task wait for it again. Revive those that were cancelled for its sake."""
        for task in self._children(id):
            if self._has_begun(task):
                continue
            self.edges[id, task.id] = None
            if task.state == "reserved":
                task.leave("pending", self.now, fence=True)
            if task.state == "pending":
                task.blocked = True
            same = [t for t in self.tasks.values() if t.key and t.key == task.key and t is not task]
            is_free = all(other.state in FINAL for other in same)
            if task.disappointed and is_free and (task.when == "failed" or not self._is_hopeless(task)):
                self._start_again(task)
                task.blocked = True
                self.revived.add(task.id)
                self._reopen(task.id)

    def _is_late(self, task: Task) -> bool:
        return task.expires is not None and task.expires <= self.now

    def expire(self) -> int:
        """Abandon expired tasks that are not held; return how many."""
        late = [task for task in self.tasks.values() if task.state in CLAIMABLE and self._is_late(task)]
        for task in late:
            task.leave("abandoned", self.now, fence=True)
        self._settle()
        return len(late)

    # -- schedules ---------------------------------------------------------------------------------

    def schedule(self, name: str, new: Schedule) -> None:
        """Declare a schedule, or change the one of this name."""
        old = self.schedules.get(name)
        if old is None or old.every != new.every:
            if old is not None:
                self._miss(name, old.due(self.now))
            new.next_at = new.after(self.now)
        else:
            new.next_at = old.next_at
        if old is not None:
            new.paused, new.last_at, new.last_task = old.paused, old.last_at, old.last_task
            new.skipped, new.missed = old.skipped, old.missed
        self.schedules[name] = new

    def unschedule(self, name: str) -> str:
        """Remove a schedule."""
        return "" if self.schedules.pop(name, None) else "UnknownSchedule"

    def pause_schedule(self, name: str, paused: bool) -> str:
        """Pause or resume a schedule. Its due ticks are missed; those while it is paused are not."""
        schedule = self.schedules.get(name)
        if schedule is None:
            return "UnknownSchedule"
        if schedule.paused != paused:
            self._miss(name, schedule.due(self.now))
            schedule.paused, schedule.next_at = paused, schedule.after(self.now)
        return ""

    def run_schedule(self, name: str) -> int | str:
        """Enqueue a task besides the ticks; return its id, or that of the task that has the key."""
        schedule = self.schedules.get(name)
        if schedule is None:
            return "UnknownSchedule"
        return self._enqueue_for(schedule)

    def _enqueue_for(self, schedule: Schedule, after: Sequence[int] = ()) -> int:
        id = self.enqueue(
            self.last_id + 1,
            budget=2,
            retry=10,
            key=schedule.key,
            expires_in=schedule.expires_in,
            after=after,
            when="ended",
        )
        assert isinstance(id, int)
        self.made.add(id)
        return id

    def make_ticks(self) -> int:
        """Make the ticks that are due; return how many schedules had some."""
        due = {name: ticks for name in sorted(self.schedules) if (ticks := self.schedules[name].due(self.now))}
        for name, ticks in due.items():
            schedule = self.schedules[name]
            made = schedule.made(ticks, self.now)
            schedule.next_at = schedule.after(self.now)
            self._miss(name, ticks[: len(ticks) - len(made)])
            schedule.last_at = ticks[-1]
            for at in made:
                if (name, at) not in self.ticks:
                    self._make_tick(name, at)
        return len(due)

    def _miss(self, name: str, ticks: list[int]) -> None:
        """Note ticks that are missed together, at the newest of them.

        If that has a row, since the clock was set back, they are not counted.
        """
        if ticks:
            self.schedules[name].last_at = ticks[-1]
            self.missed |= {(name, at): ticks[-1] for at in ticks}
        if ticks and (name, ticks[-1]) not in self.ticks:
            self.ticks[name, ticks[-1]] = "missed", None, len(ticks)
            self.schedules[name].missed += len(ticks)

    def _make_tick(self, name: str, at: int) -> None:
        schedule = self.schedules[name]
        previous = self.tasks.get(schedule.last_task or 0)
        if previous is None or previous.state in FINAL or schedule.overlap == "allow":
            self._run_tick(name, at, [])
        elif schedule.overlap == "skip":
            self._skip_tick(name, at, previous.id)
        elif schedule.overlap == "replace":
            parents = self._open_parents(previous.id)
            self.cancel(previous.id)
            self._run_tick(name, at, parents + ([previous.id] if previous.state == "running" else []))
        elif self.is_blocked(previous):
            assert previous.tick is not None
            older = previous.tick[1]
            self._take_tick(name, at, previous)
            previous.decided = self.now
            self._skip_tick(name, older, self._open_parents(previous.id)[0])
        else:
            self._run_tick(name, at, [previous.id])

    def _open_parents(self, id: int) -> list[int]:
        return [parent for (parent, child), met in self.edges.items() if child == id and met is None]

    def _run_tick(self, name: str, at: int, parents: list[int]) -> None:
        """Enqueue the task of a tick, which waits for these to end. A task that has its key skips the tick."""
        new = self.last_id + 1
        id = self._enqueue_for(self.schedules[name], parents)
        if id != new:
            self._skip_tick(name, at, id)
            return
        self.tasks[id].start_in = None
        self._take_tick(name, at, self.tasks[id])

    def _take_tick(self, name: str, at: int, task: Task) -> None:
        task.tick, task.due = (name, at), at
        self.ticks[name, at] = "ran", task.id, 0
        self.schedules[name].last_task = task.id

    def _skip_tick(self, name: str, at: int, unfinished: int) -> None:
        self.ticks[name, at] = "skipped", unfinished, 0
        self.schedules[name].skipped += 1

    def purge(self) -> int:
        """Abandon all unfinished tasks; return how many."""
        unfinished = [task for task in self.tasks.values() if task.state not in FINAL]
        for task in unfinished:
            task.leave("abandoned", self.now, "abandoned", fence=True)
        self._settle()
        return len(unfinished)

    def prune(self) -> set[int]:
        """Delete old final tasks that no unfinished child needs; return their ids."""
        old = {t.id for t in self.tasks.values() if t.state in ("done", "cancelled") and (t.finished or 0) <= self.now}
        old -= {parent for parent, child in self.edges if self.tasks[child].state not in FINAL}
        for id in old:
            del self.tasks[id]
        self.edges = {edge: met for edge, met in self.edges.items() if edge[1] not in old}
        return old

    def set_back(self, seconds: int) -> None:
        """Set the clock back. A task that was due immediately stays due, and no schedule waits longer than before."""
        self.now -= seconds
        for task in self.tasks.values():
            if task.state in CLAIMABLE and not task.blocked and self.now < task.due <= task.decided:
                task.due = self.now
        for schedule in self.schedules.values():
            if not schedule.paused:
                schedule.next_at = min(schedule.next_at, schedule.after(self.now))
