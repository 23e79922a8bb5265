"""Metric families as text, in the two formats that Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Exposition(NamedTuple):
    """The same metrics in both formats."""

    text: bytes
    openmetrics: bytes

    def answer(self, accept: str) -> tuple[bytes, str]:
        """Return what a client with this Accept header wants, and its Content-Type."""
        return (self.openmetrics, OPENMETRICS) if _wants_openmetrics(accept) else (self.text, TEXT)


def expose(families: Sequence[Metric]) -> Exposition:
    """Write metric families as text."""
    collector = _Collector(families)
    openmetrics: bytes = generate_openmetrics(collector)  # type: ignore[no-untyped-call]
    return Exposition(generate_latest(collector), openmetrics)


class _Collector:
    """What the functions of prometheus_client take: an object that collects metrics."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _wants_openmetrics(accept: str) -> bool:
    """Return whether OpenMetrics is accepted, and text is not preferred."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        if kind in quality:
            quality[kind] = max(quality[kind], _quality(parameters))
    return quality["application/openmetrics-text"] > 0 and (
        quality["application/openmetrics-text"] >= quality["text/plain"]
    )


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
