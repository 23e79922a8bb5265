"""Every test here that asks for ``engine`` or ``url`` runs once for each engine that is a server."""

from __future__ import annotations

from engines import engine_fixture

engine = engine_fixture(["postgresql", "mariadb"])
