"""Version 5 of the schema."""

from __future__ import annotations

from django.db import migrations

from ..models import creations
from ..schema import UpgradeSchema


class Migration(migrations.Migration):
    """Creates the tables, or upgrades those that ``dbtaskqueue migrate`` has created."""

    dependencies: list[tuple[str, str]] = []  # noqa: RUF012 (Django's convention)
    operations = [UpgradeSchema(5, since=0), *creations()]  # noqa: RUF012 (Django's convention)
