"""Version 5 of the schema."""

from __future__ import annotations

from django.db import migrations

from ..schema import UpgradeSchema


class Migration(migrations.Migration):
    """Creates the tables, or upgrades those that ``dbtaskqueue migrate`` has created."""

    atomic = False  # on SQLite, an open transaction would keep our own connection from reading
    dependencies: list[tuple[str, str]] = []
    operations = [UpgradeSchema(5)]  # noqa: RUF012 (Django's convention)
