"""The tracer and the instruments of one process, and what its end exports."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from opentelemetry import metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from dbtaskqueue import __version__
from dbtaskqueue._system.log import event

from .metrics import Meters

T = TypeVar("T")
TracerSource: TypeAlias = "TracerProvider | Callable[[], TracerProvider] | None"
MeterSource: TypeAlias = "MeterProvider | Callable[[], MeterProvider] | None"
_SCOPE = "dbtaskqueue.integrations.opentelemetry"
_FLUSH = 2000
"""Milliseconds for which the end of a process waits, for spans and for metrics. A child has 5 s to leave."""


class Telemetry:
    """What one process uses: an exporter's thread and connection do not survive a fork."""

    def __init__(self, tracers: TracerSource, meters: MeterSource) -> None:
        self.pid = os.getpid()
        self._given = _made(tracers), _made(meters)
        self.tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider=self._given[0])
        self.meters = Meters(metrics.get_meter(_SCOPE, __version__, meter_provider=self._given[1]))

    def flush(self) -> None:
        """Export what is left. What that raises is logged, since the tasks themselves are done."""
        tracers, meters = self._given
        # global ones may have been set since; those of the API, which export nothing, have no such method
        for provider in (tracers or trace.get_tracer_provider(), meters or metrics.get_meter_provider()):
            try:
                getattr(provider, "force_flush", _nothing)(_FLUSH)
            except Exception as error:
                event(logging.WARNING, "telemetry could not be exported at the end of a process", exc_info=error)


def _made(provider: T | Callable[[], T] | None) -> T | None:
    """Return a provider, which may be given as a function that makes it."""
    return provider() if callable(provider) else provider


def _nothing(milliseconds: int) -> None:
    """Export nothing."""
