"""A model of the contract: what each verb does to a task, written from the design page and not from the code.

Times are seconds of the model's own clock. A method returns what the verb would return, or the name of the
exception that it raises. Only one queue is modelled. A holder is a number that the test gives to each handle.
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

    ``when`` and ``start_in``: of a child. ``blocked``: a parent has not ended. ``disappointed``: it was cancelled for
    the sake of a parent. ``expires``: no attempt starts from then on.
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
    start_in: int = 0
    blocked: bool = False
    disappointed: bool = False
    expires: int | None = None

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


class Model:
    """All tasks of a queue.

    ``edges``: for each parent and child, None until the parent has ended, then whether it ended as the child wants.
    ``revived``: the tasks that an operator's retry of another one has revived.
    """

    def __init__(self) -> None:
        self.now = 0
        self.tasks: dict[int, Task] = {}
        self.edges: dict[tuple[int, int], bool | None] = {}
        self.revived: set[int] = set()
        self.paused = False

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
        """Return the ids that are reserved. If none is due, expire and rescue first."""
        while not (claimed := self._claim(holder, most)):
            if not self.expire() + self.rescue(dead):
                return []
        return claimed

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
        task.due, task.decided = self.now + task.start_in, self.now
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
        """Set the clock back. A task that was due immediately stays due."""
        self.now -= seconds
        for task in self.tasks.values():
            if task.state in CLAIMABLE and not task.blocked and self.now < task.due <= task.decided:
                task.due = self.now
