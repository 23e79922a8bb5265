"""``manage.py dbtaskqueue``: the command line of dbtaskqueue, for the database and the tasks of a backend."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.tasks import DEFAULT_TASK_BACKEND_ALIAS, task_backends
from django.tasks.exceptions import InvalidTaskBackend

from .....cli import command_line_for
from ...backend import DatabaseBackend
from ...code import load_tasks
from ...reloading import changes

_RELOAD = {"--reload", "--noreload", "--no-reload"}


class Command(BaseCommand):
    """Hands the rest of the line to the command line of dbtaskqueue."""

    help = "Run and operate background tasks: worker, list, show, retry and so on. Without COMMAND, list the commands."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options before COMMAND."""
        parser.add_argument(
            "--backend",
            default=DEFAULT_TASK_BACKEND_ALIAS,
            metavar="ALIAS",
            help='The backend in TASKS. Default: "default".',
        )
        parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND …")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run a command. Raises CommandError if it fails and was not called from the command line."""
        try:
            backend = task_backends[options["backend"]]
        except InvalidTaskBackend:
            known = ", ".join(map(repr, task_backends.settings))
            raise CommandError(f"TASKS has no backend {options['backend']!r}; there are: {known}") from None
        if not isinstance(backend, DatabaseBackend):
            raise CommandError(f"TASKS[{options['backend']!r}] is not a DatabaseBackend of dbtaskqueue")
        load_tasks()
        words = self._reloading(options["command"] or ["--help"])
        if settings.DEBUG and self._called_from_command_line and not logging.getLogger().handlers:
            logging.getLogger("django").propagate = False  # with DEBUG it has a handler already
        program = [*("python", "manage.py", "dbtaskqueue"), *self._alias(options["backend"])]
        group = command_line_for(
            backend.unopened_queue,
            " ".join(program),
            queues=sorted(backend.queues) or ["*"],
            program=program,
            migrate=("python", *backend.migrate_command),
            is_program=self._called_from_command_line,
            changes=changes,
        )
        out, err = options.get("stdout") or sys.stdout, options.get("stderr") or sys.stderr
        code = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                group.main(words, prog_name=" ".join(program))
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        finally:
            if backend.unopened_queue.is_open:
                backend.unopened_queue.store.disconnect()
        if code and self._called_from_command_line:
            sys.exit(code)
        if code:
            raise CommandError(f"{' '.join(program)} {' '.join(words)} has failed", returncode=code)

    def _reloading(self, words: list[str]) -> list[str]:
        """Return the words of the command, with ``--reload`` for a worker in development unless it is turned off.

        Django's ``--noreload`` and ``--no-reload`` are both understood.
        """
        rest = [word for word in words if word not in _RELOAD]
        if words[0] != "worker" or not self._called_from_command_line:
            return rest
        is_usual = settings.DEBUG and "--burst" not in words and not os.environ.get("NOTIFY_SOCKET")
        is_wanted = "--reload" in words or (is_usual and len(rest) == len(words))
        return [*rest, "--reload"] if is_wanted else rest

    def _alias(self, alias: str) -> list[str]:
        return [] if alias == DEFAULT_TASK_BACKEND_ALIAS else ["--backend", alias]
