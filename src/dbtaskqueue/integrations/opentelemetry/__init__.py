"""OpenTelemetry: spans for enqueueing, attempts and steps, and metrics of workers.

Names follow the semantic conventions for messaging. A task's ``meta`` carries the trace context of its enqueue.
"""

from __future__ import annotations

from dbtaskqueue.integrations import missing

try:
    import opentelemetry.instrumentation.instrumentor
    import opentelemetry.trace  # noqa: F401 - the modules below need both
except ImportError as error:
    raise missing("opentelemetry", error) from None

from .instrumentor import DbtaskqueueInstrumentor
from .tracing import OpenTelemetry

__all__ = ["DbtaskqueueInstrumentor", "OpenTelemetry"]
