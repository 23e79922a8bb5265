"""Every test here that asks for ``url`` runs once for each engine."""

from __future__ import annotations

from engines import engine_fixture

engine = engine_fixture()
