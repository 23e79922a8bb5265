"""Reports on a run of the suite. It counts skips by reason, fails if a query was not run, and stops after --maxfail.

This plugin runs in the process that prints the report and in each process of pytest-xdist, which pass their data to it.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import query_coverage
from servers.requirements import absent

OUTPUT = "dbtaskqueue"
"""The key under which a process of pytest-xdist returns its data."""


class Report:
    """Collects the data of all processes, prints it, and fails a complete run that left a query out."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        ignores = config.option.ignore or config.option.ignore_glob or getattr(config.option, "lf", False)
        self._is_complete = config.args_source == pytest.Config.ArgsSource.TESTPATHS and not ignores
        self._ran: dict[str, set[str]] = query_coverage.recorded
        self._absent: set[str] = absent
        self._unused: list[str] = []
        self._failures = 0
        self._stop = _stop_file(config.workerinput) if hasattr(config, "workerinput") else None

    # -- the end of the run after --maxfail --------------------------------------------------------

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        self._stop = _stop_file(node.workerinput)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Make the other processes stop, since pytest-xdist lets each of them run all tests that it was given."""
        self._failures += report.failed
        if self._stop is not None and self._failures >= (self._config.option.maxfail or float("inf")):
            self._stop.touch()

    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        if self._stop is not None and self._stop.exists():
            item.session.shouldfail = "enough tests have failed in the whole run"

    def pytest_unconfigure(self) -> None:
        if self._stop is not None and not hasattr(self._config, "workerinput"):
            self._stop.unlink(missing_ok=True)

    # -- queries that no test ran ------------------------------------------------------------------

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._is_complete = self._is_complete and not items

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take the data of a process of pytest-xdist that has ended. A crashed process passes none."""
        given = getattr(node, "workeroutput", {}).get(OUTPUT)
        self._is_complete = self._is_complete and given is not None and given["complete"]
        for engine, names in (given or {}).get("ran", {}).items():
            self._ran[engine].update(names)
        self._absent.update((given or {}).get("absent", []))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workeroutput"):  # this is a process of pytest-xdist
            ran = {engine: sorted(names) for engine, names in self._ran.items()}
            self._config.workeroutput[OUTPUT] = {"ran": ran, "absent": sorted(absent), "complete": self._is_complete}
            return
        stopped = session.shouldstop or session.shouldfail or self._config.option.collectonly
        if self._is_complete and session.exitstatus == pytest.ExitCode.OK and not stopped:
            for engine in query_coverage.LINKS.keys() - self._absent:
                self._unused += [
                    f"NO TEST RAN THE QUERY {name!r} ON {engine}"
                    for name in query_coverage.unused(engine, self._ran[engine])
                ]
            if self._unused:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED

    # -- the report --------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> Any:
        """Print these lines first, so that failures are printed last."""
        skipped = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
        if skipped:
            terminalreporter.section("skipped")
            for reason, count in skipped.most_common():
                terminalreporter.line(f"{count:5} {reason}")
        result = yield
        for line in self._unused:
            terminalreporter.line(line, red=True)
        return result


def _stop_file(workerinput: dict[str, Any]) -> Path:
    """Return the file whose existence stops the run. All processes of a run use the same name."""
    return Path(tempfile.gettempdir(), f"dbtaskqueue-tests-stop-{workerinput['testrunuid']}")


def _reason(report: pytest.TestReport) -> str:
    """Return why a test was skipped."""
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return re.sub(r"^Skipped: ", "", text)
