"""The instruments of a worker, and their attributes, whose numbers of values are bounded."""

from __future__ import annotations

from opentelemetry.metrics import Meter

SYSTEM = "dbtaskqueue"
MOST_NAMES = 200
"""The most queues, functions and types of errors that metrics tell apart. Further ones are counted as ``_OTHER``."""
OTHER = "_OTHER"
BUCKETS = (0.005, 0.025, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400, 7 * 86400, 30 * 86400)
"""The recommended bounds of ``messaging.process.duration``, in seconds: tasks may run for days."""


class Meters:
    """The instruments, which one process creates once."""

    def __init__(self, meter: Meter) -> None:
        messages = "{message}"
        self.sent = meter.create_counter(
            "messaging.client.sent.messages", messages, "Tasks that were enqueued, and calls that failed."
        )
        self.consumed = meter.create_counter(
            "messaging.client.consumed.messages", messages, "Attempts that have ended."
        )
        self.duration = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long the code of attempts ran.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._known: dict[str, set[str]] = {}

    def attributes(
        self, queue: str, operation: str, *, function: str | None = None, error_type: str | None = None
    ) -> dict[str, str]:
        """Return the attributes of a measurement."""
        varying = {
            "messaging.destination.name": queue,
            "dbtaskqueue.function": function,
            "error.type": error_type,
        }
        found = {name: self._bounded(name, value) for name, value in varying.items() if value is not None}
        return {"messaging.system": SYSTEM, "messaging.operation.name": operation, **found}

    def _bounded(self, name: str, value: str) -> str:
        known = self._known.setdefault(name, set())
        if value not in known:
            if len(known) >= MOST_NAMES:
                return OTHER
            known.add(value)
        return value
