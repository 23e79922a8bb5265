"""Extensions and a provider of functions, at the top of a module, where a child process finds them."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any

from dbtaskqueue import RetryPolicy, RetryTask, RunningTask, TaskQueue, current_task
from dbtaskqueue.extension import Extension

FILE = "EXTENSION_NOTES"
"""The environment variable that names the file of all notes."""
inside: ContextVar[str] = ContextVar("inside", default="")
never = threading.Event()


def note(*words: object) -> None:
    """Add a line with the pid to the file of notes."""
    with open(os.environ[FILE], "a", encoding="utf-8") as out:
        out.write(" ".join(map(str, (os.getpid(), *words))) + "\n")


def notes() -> list[tuple[int, str]]:
    """Return all notes: pid and text."""
    path = Path(os.environ[FILE])
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(pid), text) for pid, _, text in (line.partition(" ") for line in lines)]


class Around(Extension):
    """An extension that notes each call, under its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    @contextlib.contextmanager
    def attempt(self, task: RunningTask) -> Iterator[None]:
        assert current_task() is task
        note(self.name, "enters", task.id)
        token = inside.set(self.name)
        try:
            yield
        except BaseException as error:
            note(self.name, "sees", type(error).__name__)
            raise
        finally:
            inside.reset(token)
            note(self.name, "leaves", task.id)

    @contextlib.contextmanager
    def step(self, task: RunningTask, name: str) -> Iterator[None]:
        assert current_task() is task
        note(self.name, "enters step", name)
        try:
            yield
        finally:
            note(self.name, "leaves step", name, type(sys.exception()).__name__)

    def progressed(self, task: RunningTask, done: float, total: float | None, message: str | None) -> None:
        assert current_task() is task
        note(self.name, "hears", done, total, message)

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        note(self.name, "starts")
        threading.Thread(target=never.wait, daemon=True).start()  # as a metrics exporter would
        yield
        note(self.name, "stops")


class Broken(Extension):
    """An extension that raises at the point given by its name."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, where: str) -> None:
        if where == self.where:
            raise LookupError(where)

    @contextlib.contextmanager
    def attempt(self, task: RunningTask) -> Iterator[None]:
        self.fail("entering the attempt")
        yield
        self.fail("leaving the attempt")

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        self.fail("entering the process")
        yield
        self.fail("leaving the process")


class Suppressing(Extension):
    """An extension that suppresses exceptions of the code."""

    def attempt(self, task: RunningTask) -> contextlib.AbstractContextManager[object]:
        return contextlib.suppress(ValueError)

    def step(self, task: RunningTask, name: str) -> contextlib.AbstractContextManager[object]:
        return contextlib.suppress(ValueError)


outer, inner = Around("outer"), Around("inner")
suppressing = Suppressing()
broken = {where: Broken(where) for where in ("entering the attempt", "leaving the attempt")}
broken_in, broken_out = broken.values()
broken_start, broken_stop = Broken("entering the process"), Broken("leaving the process")

queue = TaskQueue(open=False, extensions=[Extension(), Around("inline")])


def act(payload: dict[str, Any]) -> Any:
    """Note that it runs, then return or raise what the payload says."""
    note("code in", inside.get() or "nothing")
    if "raise" in payload:
        raise ValueError(payload["raise"])
    return payload.get("return")


async def act_async(payload: dict[str, Any]) -> Any:
    """Do the same as ``act``, as a coroutine."""
    return act(payload)


def in_steps(payload: dict[str, Any]) -> Any:
    """Run ``act`` as a step, which a later attempt does not repeat, report progress, and run a step that may fail."""
    task = current_task()
    result = task.step("first", act, {"return": 1})
    task.progress(1, 2, "half")
    return [result, task.step("second", act, payload)]


async def in_steps_async(payload: dict[str, Any]) -> Any:
    """Do the same as ``in_steps``, as a coroutine."""
    task = current_task()
    result = await task.step("first", act_async, {"return": 1})
    task.progress(1, 2, "half")
    return [result, await task.step("second", act_async, payload)]


class Provider:
    """A provider of functions that are not at the top of a module, created at the first use."""

    def find(self, name: str) -> Callable[..., Any] | None:
        return (lambda number: [name, number, os.getpid()]) if name in self.names() else None

    def names(self) -> list[str]:
        return ["made.one", "made.two"]


provider = Provider()


# -- backoff -----------------------------------------------------------------------------------------


class Refused(Exception):
    """An exception class of this module."""


def decide(error: BaseException, attempt: int) -> Any:
    """Return the delay that the error's text gives."""
    note("asked", type(error).__name__, attempt)
    what, _, value = str(error).partition(" ")
    if what == "raise":
        raise LookupError("no answer")
    return {"after": float(value or 0), "abandon": None, "odd": "soon", "duration": timedelta(seconds=7)}[what]


@queue.task(name="decided", retry=RetryPolicy(delay=60), backoff=decide)
def decided(what: str) -> None:
    """Fail with an error for which ``decide`` returns this delay."""
    if what == "retry":
        raise RetryTask(5)
    if what == "exit":
        os._exit(7)
    raise Refused(what)
