"""Metrics for Prometheus. The only package that imports prometheus_client: ``dbtaskqueue[metrics]``.

``census.py`` counts, ``families.py`` makes metrics of it, and ``exposition.py`` writes them as text. ``cache.py`` does
so in the background, and ``server.py`` serves the result.
"""

from .cache import MetricsCache as MetricsCache
