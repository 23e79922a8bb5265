"""What ``opentelemetry-instrument`` finds: it traces every ``TaskQueue`` without changes to a program."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.instrumentation import auto_instrumentation
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from dbtaskqueue import Worker
from dbtaskqueue.extension import for_all_queues

from .tracing import OpenTelemetry


class _ByCommand(OpenTelemetry):
    """The extension of a program that ``opentelemetry-instrument`` has started."""

    @contextlib.contextmanager
    def worker(self, worker: Worker) -> Iterator[None]:
        """See Extension. Child processes are instrumented, which older versions of the command prevent."""
        entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
        if (directory := _directory()) not in entries:
            os.environ["PYTHONPATH"] = os.pathsep.join([directory, *entries])
        with super().worker(worker):
            yield


by_hand, by_command = OpenTelemetry(), _ByCommand()
"""The extensions of the instrumentor, where child processes find them."""


class DbtaskqueueInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # it has no types
    """Traces every ``TaskQueue`` that is created after ``instrument()``. ``opentelemetry-instrument`` finds it.

    ``instrument`` takes the arguments of ``OpenTelemetry``. They apply to this process; child processes use the global
    providers.
    """

    def instrumentation_dependencies(self) -> Collection[str]:
        """See BaseInstrumentor: none, since the instrumentor is part of the library."""
        return ()

    def _instrument(self, **options: Any) -> None:
        extension = by_command if _is_by_command() else by_hand
        OpenTelemetry.__init__(extension, **options)
        if extension not in for_all_queues:
            for_all_queues.append(extension)

    def _uninstrument(self, **options: Any) -> None:
        for extension in (by_hand, by_command):
            extension.enabled = False
            if extension in for_all_queues:
                for_all_queues.remove(extension)


def _is_by_command() -> bool:
    """Return whether ``opentelemetry-instrument`` has started this process."""
    file = getattr(sys.modules.get("sitecustomize"), "__file__", None)
    return file is not None and str(Path(file).parent) == _directory()


def _directory() -> str:
    """Return the directory whose ``sitecustomize`` module instruments a Python process at its start."""
    return str(Path(auto_instrumentation.__file__).parent)
