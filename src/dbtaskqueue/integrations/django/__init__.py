"""Django: a backend of its task framework, and an app with migrations, a management command, checks and an admin.

``INSTALLED_APPS`` names this package, and ``TASKS`` names ``DatabaseBackend``. Importing the package imports no model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import missing

try:
    import django
except ImportError as error:
    raise missing("django", error) from None

if django.VERSION < (6, 0):
    raise ImportError(f"dbtaskqueue needs Django 6.0 or later, which has django.tasks; this is {django.__version__}")

if TYPE_CHECKING:
    from .backend import DatabaseBackend as DatabaseBackend


def __getattr__(name: str) -> object:
    if name == "DatabaseBackend":  # Django imports this package before its settings and apps are ready
        from .backend import DatabaseBackend

        return DatabaseBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
