"""The app: its label is ``dbtaskqueue``."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import request_finished
from django.db.backends.signals import connection_created
from django.db.models.signals import post_migrate


class TaskQueueConfig(AppConfig):
    """The app ``dbtaskqueue.integrations.django``."""

    name = "dbtaskqueue.integrations.django"
    label = "dbtaskqueue"
    verbose_name = "Task queue"

    def ready(self) -> None:
        """Close connections at the end of a request, as Django closes its own, and heed migrations."""
        from .backend import close_before_drop, close_old_connections
        from .checks import check_sqlite_files
        from .signals import heed_migration

        checks.register(check_sqlite_files)
        request_finished.connect(close_old_connections, dispatch_uid="dbtaskqueue.close_old_connections")
        connection_created.connect(close_before_drop, dispatch_uid="dbtaskqueue.close_before_drop")
        post_migrate.connect(heed_migration, sender=self, dispatch_uid="dbtaskqueue.heed_migration")
