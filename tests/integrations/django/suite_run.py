"""Runs Django's own ``tests/tasks`` with our backend. The argument is a file for the outcomes, as JSON.

The tests name Django's two backends in TASKS, import their classes, and expect instances of them. So before the tests
are imported, the two names get classes of this file in their place:

- ``DummyBackend``: our backend, with the two things that its tests use beyond the interface of a backend. ``results``
  reads all results from the database, and ``clear`` deletes all tasks.
- ``ImmediateBackend``: our backend, and after each ``enqueue`` a worker in this process, which runs what is due. The
  tests get the result as it is read from the database afterwards.

Nothing else is changed: the settings of the tests, their tasks and their assertions are Django's.
"""

from __future__ import annotations

import json
import os
import sys
import unittest
from pathlib import Path
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "suite_settings"

import django
from django.tasks import TaskResult
from django.tasks.backends import dummy, immediate
from django.test.runner import DiscoverRunner

from dbtaskqueue import Worker
from dbtaskqueue.integrations.django import DatabaseBackend


class Stored(DatabaseBackend):
    """In place of DummyBackend, which runs nothing."""

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.ids: list[str] = []

    def enqueue(self, *args: Any, **kwargs: Any) -> TaskResult:
        """Store a task, and remember its id."""
        result = super().enqueue(*args, **kwargs)
        self.ids.append(result.id)
        return result

    @property
    def results(self) -> list[TaskResult]:
        """The results of the tasks that this backend has stored, oldest first."""
        return [self.get_result(id) for id in self.ids]

    def clear(self) -> None:
        """Delete these tasks."""
        for id in map(int, self.ids):
            self.queue.cancel(id)
            self.queue.delete(id)
        self.ids.clear()


class Immediate(DatabaseBackend):
    """In place of ImmediateBackend, which runs each task before ``enqueue`` returns."""

    def enqueue(self, *args: Any, **kwargs: Any) -> TaskResult:
        """Store a task, run it, and return its result."""
        result = super().enqueue(*args, **kwargs)
        Worker(self.queue, queues=["*"], executor="thread").run(burst=True)
        return self.get_result(result.id)


class Result(unittest.TextTestResult):
    """Collects the outcome of each test."""

    outcomes: dict[str, str] = {}  # noqa: RUF012

    def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().addSuccess(test)
        self.outcomes.setdefault(name_of(test), "passed")

    def addFailure(self, test: unittest.TestCase, error: Any) -> None:  # noqa: N802
        super().addFailure(test, error)
        self.outcomes[name_of(test)] = self._exc_info_to_string(error, test)

    addError = addFailure  # noqa: N815

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, error: Any) -> None:  # noqa: N802
        super().addSubTest(test, subtest, error)
        if error is not None:
            self.outcomes[name_of(test)] = self._exc_info_to_string(error, test)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self.outcomes[name_of(test)] = f"skipped: {reason}"


def name_of(test: unittest.TestCase) -> str:
    return test.id().removeprefix("tasks.")


class Runner(DiscoverRunner):
    """Runs all tests but those that are left out."""

    def build_suite(self, *args: Any, **kwargs: Any) -> unittest.TestSuite:
        suite = super().build_suite(*args, **kwargs)
        found = list(suite)
        Result.outcomes |= {name_of(test): "left out" for test in found if name_of(test) in LEFT_OUT}
        return type(suite)(test for test in found if name_of(test) not in LEFT_OUT)

    def get_resultclass(self) -> type[Result]:
        return Result


if __name__ == "__main__":
    outcomes, left_out = sys.argv[1:3]
    LEFT_OUT = set(json.loads(left_out))
    dummy.DummyBackend = Stored
    immediate.ImmediateBackend = Immediate
    django.setup()
    Runner(verbosity=1, interactive=False, parallel=0).run_tests(["tasks"])
    Path(outcomes).write_text(json.dumps(Result.outcomes))
