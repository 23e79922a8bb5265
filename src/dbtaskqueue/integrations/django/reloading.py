"""Watches the files of the project as ``runserver`` does, for a worker that restarts when they change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.apps import apps
from django.utils import autoreload


def changes() -> Iterator[set[str]]:
    """Wait for a moment, and yield the files that have changed meanwhile, again and again.

    Watched are the modules that this process has imported, and all modules of the project's apps.
    """
    reloader = autoreload.get_reloader()
    logging.getLogger("dbtaskqueue").info("files are watched by %s", type(reloader).__name__)
    for app in apps.get_app_configs():
        if "site-packages" not in Path(app.path).parts:
            reloader.watch_dir(app.path, "**/*.py")
    found: set[str] = set()

    def note(file_path: Path, **kwargs: Any) -> bool:
        found.add(str(file_path))
        return True  # otherwise Django ends the process

    autoreload.file_changed.connect(note, dispatch_uid=changes)
    autoreload.autoreload_started.send(sender=reloader)
    for _ in reloader.tick():
        yield {*found}
        found.clear()
