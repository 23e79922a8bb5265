"""A model of the contract: what each verb does to a task, written from the design page and not from the code.

Times are seconds of the model's own clock. A method returns what the verb would return, or the name of the
exception that it raises. Only one queue is modelled. A holder is a number that the test gives to each handle.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FINAL = ("done", "cancelled", "abandoned")
CLAIMABLE = ("pending", "failed")
HELD = ("reserved", "running")


@dataclass
class Task:
    """A task. ``decided`` is when its due time was set, ``base`` its attempts at the last operator's retry."""

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
        state = "cancelled" if self.asked else "abandoned" if spent else "failed"
        if state == "failed":
            self.due = now + self.delay * (self.attempt - self.base) if due is None else due
        self.decided = now
        self.leave(state, now, "cancelled" if self.asked else outcome or state, fence=fence)


class Model:
    """All tasks of a queue."""

    def __init__(self) -> None:
        self.now = 0
        self.tasks: dict[int, Task] = {}
        self.paused = False

    def enqueue(self, id: int, *, priority: int, delay: int, budget: int | None, retry: int, key: str | None) -> int:
        """Return the id of the task that has the key, or of the new task."""
        for task in self.tasks.values():
            if key is not None and task.key == key and task.state not in FINAL:
                return task.id
        self.tasks[id] = Task(id, priority, self.now + delay, self.now, budget, retry, key)
        return id

    def fetch(self, holder: int, most: int, dead: set[int]) -> list[int]:
        """Return the ids that are reserved. If none is due, rescue first."""
        return self._claim(holder, most) or (self._claim(holder, most) if self.rescue(dead) else [])

    def _claim(self, holder: int, most: int) -> list[int]:
        due = [task for task in self.tasks.values() if task.state in CLAIMABLE and task.due <= self.now]
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
        return len(lost)

    def hold(self, verb: str, id: int, token: int, **options: int | bool) -> str:
        """Apply a holder's verb with this token. Return "" or the name of the exception."""
        task = self.tasks.get(id)
        if task is None or task.token != token:
            return "LeaseLost"
        if task.state not in {"start": ("reserved",), "release": HELD}.get(verb, ("running",)):
            return "InvalidTransition"
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
        return ""

    def retry(self, id: int) -> str:
        """Retry a task, as an operator does."""
        task = self.tasks[id]
        same = [t for t in self.tasks.values() if t.key and t.key == task.key and t.id != id and t.state not in FINAL]
        if task.state not in (*FINAL, "failed") or same:
            return "InvalidTransition"
        task.leave("pending", self.now, fence=True)
        task.due = task.decided = self.now
        task.base, task.lost, task.asked = task.attempt, 0, False
        return ""

    def purge(self) -> int:
        """Abandon all unfinished tasks; return how many."""
        unfinished = [task for task in self.tasks.values() if task.state not in FINAL]
        for task in unfinished:
            task.leave("abandoned", self.now, "abandoned", fence=True)
        return len(unfinished)

    def prune(self) -> set[int]:
        """Delete old final tasks; return their ids."""
        old = {t.id for t in self.tasks.values() if t.state in ("done", "cancelled") and (t.finished or 0) <= self.now}
        for id in old:
            del self.tasks[id]
        return old

    def set_back(self, seconds: int) -> None:
        """Set the clock back. A task that was due immediately stays due."""
        self.now -= seconds
        for task in self.tasks.values():
            if task.state in CLAIMABLE and self.now < task.due <= task.decided:
                task.due = self.now
