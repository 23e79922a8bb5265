"""Run CPython's own executor tests, those of the interpreter that runs this, with QueueExecutor.

python cpython_suite.py thread|process

Prints a line of JSON: the results by test, and the reasons why tests were left out. Nothing of CPython's is copied:
its mixins are imported, and made into test cases whose executor is ours.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import sys
import tempfile
import unittest
from types import ModuleType
from typing import Any

SUITE = "test.test_concurrent_futures"
MIXINS = {
    "executor": ["ExecutorTest"],
    "test_shutdown": ["ExecutorShutdownTest"],
    "test_wait": ["WaitTests"],
    "test_as_completed": ["AsCompletedTests"],
    "test_init": ["InitializerMixin", "FailingInitializerMixin"],
    "test_process_pool": ["ProcessPoolExecutorTest"],
}
"""Where Python 3.12 and later have them. In 3.11 all are in one module."""

UNSTORABLE = "its object cannot be stored in a database, so submit raises TypeError"
OUTPUT = "expects what a child process prints on the terminal; here it is stored with the task"
TIMING = "expects that a call starts before 50 calls are cancelled; the first child process takes longer"
LEFT_OUT = {
    "thread": {
        "ExecutorTest.test_no_stale_references": UNSTORABLE,
        "ExecutorTest.test_free_reference": UNSTORABLE,
        "FailingInitializerMixin.test_initializer": "reads a private attribute, _broken; ours: test_queue_executor.py",
    },
    "process": {
        "ExecutorTest.test_no_stale_references": UNSTORABLE,
        "ExecutorTest.test_free_reference": UNSTORABLE,
        "FailingInitializerMixin.test_initializer": "reads a private attribute, _broken; ours: test_queue_executor.py",
        "ExecutorShutdownTest.test_interpreter_shutdown": OUTPUT,
        "ExecutorShutdownTest.test_hang_gh83386": OUTPUT,
        "ExecutorShutdownTest.test_cancel_futures": TIMING,
    },
}
TIMED = "test_cancel_futures"
"""Gets five tries: it expects that a call starts while 50 are submitted, which a busy machine may not manage."""
OF_PROCESS_POOLS = {"test_map_chunksize"}
"""The tests of ProcessPoolExecutorTest that are about the interface. The others read private attributes of a pool, use
locks of multiprocessing as arguments, or set options that QueueExecutor does not have."""


def module_of(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"{SUITE}.{name}")
    except ModuleNotFoundError as error:
        if error.name == "test" or error.name == SUITE:
            raise
        return importlib.import_module(SUITE)


def with_ours(run: Any) -> Any:
    """Return ``assert_python_ok`` for scripts that import our executors from ``concurrent.futures``."""

    @functools.wraps(run)
    def run_script(option: str, script: str, **variables: str) -> Any:
        script = script.replace("test.test_concurrent_futures.test_shutdown", module_of("test_shutdown").__name__)
        path = os.pathsep.join(path for path in sys.path if path)
        return run(option, f"import cpython_executors\n{script}", PYTHONPATH=path, **variables)

    return run_script


def patient(test: Any) -> Any:
    """Return a test that passes if one of five tries does."""

    @functools.wraps(test)
    def run(case: Any) -> None:
        for _ in range(4):
            try:
                test(case)
            except AssertionError:
                case.tearDown()
                case.setUp()
            else:
                return
        test(case)

    return run


def cases(kind: str) -> tuple[unittest.TestSuite, dict[str, str]]:
    """Return the test cases, and those that are left out with the reasons."""
    from cpython_executors import EXECUTORS  # beside this script

    util, shutdown = module_of("util"), module_of("test_shutdown")
    shutdown.assert_python_ok = with_ours(shutdown.assert_python_ok)
    suite, left_out = unittest.TestSuite(), {}
    for module, mixins in MIXINS.items():
        for name in mixins:
            mixin = getattr(module_of(module), name)
            bases = (mixin,) if issubclass(mixin, util.ExecutorMixin) else (mixin, util.ExecutorMixin)
            own = {"executor_type": EXECUTORS[kind], "__module__": __name__}
            if hasattr(mixin, TIMED):
                own[TIMED] = patient(getattr(mixin, TIMED))
            case = type(name, (*bases, util.BaseTestCase), own)
            for test in unittest.defaultTestLoader.getTestCaseNames(case):
                if name == "ProcessPoolExecutorTest" and (kind == "thread" or test not in OF_PROCESS_POOLS):
                    continue
                if reason := LEFT_OUT[kind].get(f"{name}.{test}"):
                    left_out[f"{name}.{test}"] = reason
                else:
                    suite.addTest(case(test))
    return suite, left_out


class Result(unittest.TextTestResult):
    """Notes the outcome of each test by its name."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.outcomes: dict[str, str] = {}

    def _note(self, test: unittest.TestCase, outcome: str) -> None:
        self.outcomes.setdefault(f"{type(test).__name__}.{test._testMethodName}", outcome)

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        super().addSuccess(test)
        self._note(test, "passed")

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addError(test, err)
        self._note(test, "error")

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        super().addFailure(test, err)
        self._note(test, "failed")

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        super().addSkip(test, reason)
        self._note(test, f"skipped: {reason}")


def main(kind: str, only: str = "") -> int:
    from test import support

    support.use_resources = None  # all resources, also "walltime"
    suite, left_out = cases(kind)
    chosen = unittest.TestSuite(case for case in suite if only in str(case))
    report = io.StringIO()
    result: Any = unittest.TextTestRunner(report, verbosity=2, resultclass=Result).run(chosen)
    print(report.getvalue(), file=sys.stderr)
    print()  # ends the line on which the tests print seconds
    print(json.dumps({"outcomes": result.outcomes, "left_out": left_out}))
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        tempfile.tempdir = directory
        sys.exit(main(*sys.argv[1:]))
