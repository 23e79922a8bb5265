"""A task queue of Flask applications: ``tasks = FlaskTaskQueue()`` in a module, and ``tasks.init_app(app)``.

It is a ``TaskQueue`` whose database is that of the current application, so one object serves several applications, as
where each test creates its own. Tasks run in an application context. ``flask tasks`` is its command line.

A child process gets the application as the ``flask`` command did, from a factory or a module: see ``LoadedApp``.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

from .. import retry
from ..checks import check_lease, check_queue
from ..coding import Coder
from ..current import RunningTask
from ..errors import ConfigurationError, TaskQueueError
from ..extension import Extension
from ..handle import Handle
from ..queue import TaskQueue
from ..retry import RetryPolicy
from . import missing

try:
    import click
    from flask import Flask, has_app_context
    from flask.cli import ScriptInfo
    from flask.globals import app_ctx
except ImportError as error:
    raise missing("flask", error) from None

NAME = "dbtaskqueue"
_PATH = "DBTASKQUEUE_FLASK_APP"
"""The variable that tells child processes which application ``flask tasks`` has loaded."""
_IMPORTED_BY = os.getpid()
_UNKNOWN = (
    "no Flask application is known in this process: call init_app(app). In a child process: start the worker with"
    " 'flask tasks worker', set FLASK_APP, or create the application at the top of a module"
)
_AMBIGUOUS = (
    "this FlaskTaskQueue has several applications, or the current application is none of them: use it inside"
    " app.app_context() of an application that was passed to init_app"
)
_SQLITE = re.compile(r"sqlite(\+\w+)?://(/(?P<file>[^?]*))?(\?.*)?")


class FlaskTaskQueue(TaskQueue):
    """A queue in the database of the current Flask application.

    ``init_app`` connects it to an application, whose config is read at the first use: ``DBTASKQUEUE_URL`` (else
    ``SQLALCHEMY_DATABASE_URI``, else ``$DBTASKQUEUE_URL``), ``DBTASKQUEUE_QUEUE`` (by default ``queue``) and
    ``DBTASKQUEUE_LEASE`` (by default ``lease``). Outside of an application context, it is the queue of its only
    application. If there are several, it raises TaskQueueError.

    The other parameters are those of ``TaskQueue``. Task functions, extensions and coders belong to all applications.
    """

    def __init__(
        self,
        app: Flask | None = None,
        queue: str = "default",
        *,
        retry: RetryPolicy = retry.DEFAULT,
        lease: float | timedelta = 30.0,
        create: bool = True,
        extensions: Iterable[Extension] = (),
        coders: Iterable[Coder] = (),
    ) -> None:
        self._default_name, self._lane = check_queue(queue), ""
        self._apps: weakref.WeakKeyDictionary[Flask, _Bound | None] = weakref.WeakKeyDictionary()
        self._requested: weakref.WeakSet[Flask] = weakref.WeakSet()
        self._binding = threading.Lock()
        super().__init__(None, queue, retry=retry, open=False)
        self._lane = ""  # TaskQueue has set the name, as lane() does
        context = _AppContext(self._app_of_child)
        self._unbound = _Unbound(
            None, lease=check_lease(lease), create=create, extensions=[context, *extensions], coders=coders
        )
        self.__qualname__ = "loaded.queue"  # where a child process finds it, as described at LoadedApp
        places: Any = self._unbound.functions
        places.__module__, places.__qualname__ = __name__, "loaded.queue.functions"
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Connect the queue to an application. The first request opens its database, or the first use before that.

        Raises RuntimeError if the application already has a ``FlaskTaskQueue``.
        """
        if NAME in app.extensions:
            raise RuntimeError(f"this application already has a FlaskTaskQueue: app.extensions[{NAME!r}]")
        app.extensions[NAME] = self
        self._apps[app] = None
        app.before_request(self._open_early)
        app.cli.add_command(_Tasks("tasks", help="Run and operate the tasks of this application."))

    def _open_early(self) -> None:
        """Create missing tables before a view has a transaction, whose lock on a SQLite file would prevent that."""
        app: Flask = app_ctx.app
        if app not in self._requested:
            self._requested.add(app)
            with contextlib.suppress(TaskQueueError):  # the first use raises it, if there is one
                self.open()

    def use(self, extension: Extension) -> None:
        """Add an extension, for all applications. Raises TypeError if it is not an ``Extension``."""
        self._unbound.use(extension)
        for bound in self._apps.values():
            if bound is not None:
                bound.handle.use(extension)

    @property
    def name(self) -> str:
        """The name of the queue: of a lane its own, else that of the current application."""
        return self._lane or self._here().queue

    @name.setter
    def name(self, name: str) -> None:
        self._lane = name

    @property
    def _handle(self) -> Handle:
        """The database of the current application, which ``TaskQueue`` uses for everything."""
        return self._here().handle

    @_handle.setter
    def _handle(self, handle: Handle) -> None:
        """Ignore the one that ``TaskQueue`` makes."""

    def _here(self) -> _Bound:
        app = self._current()
        if app is None:
            return _Bound(self._unbound, self._default_name)
        bound = self._apps[app]
        if bound is None:
            with self._binding:
                bound = self._apps[app] = self._apps[app] or self._bind(app)
        return bound

    def _current(self) -> Flask | None:
        """Return the application of the current context, or the only one, or None."""
        if has_app_context():
            current: Flask = app_ctx.app
            return current if current in self._apps else None
        apps = list(self._apps)
        return apps[0] if len(apps) == 1 else loaded.app if loaded.app in apps else None

    def _bind(self, app: Flask) -> _Bound:
        lease = app.config.get("DBTASKQUEUE_LEASE")
        queue = check_queue(app.config.get("DBTASKQUEUE_QUEUE") or self._default_name)
        known = weakref.ref(app)  # the handle is a value of _apps: it must not keep the application alive
        context = _AppContext(lambda: known() or self._app_of_child())
        handle = self._unbound.elsewhere(
            _url_of(app),
            lease=self._unbound.lease if lease is None else check_lease(lease),
            extensions=[context if isinstance(each, _AppContext) else each for each in self._unbound.extensions],
            queues={self._default_name: queue},
        )
        return _Bound(handle, queue)

    def _app_of_child(self) -> Flask:
        return self._current() or loaded.load()


class _Bound(NamedTuple):
    """The database of one application, and the name of its queue."""

    handle: Handle
    queue: str


class _Unbound(Handle):
    """What a ``FlaskTaskQueue`` has without an application: functions and extensions, but no database."""

    def open(self, url: str | None = None) -> None:
        """Raise TaskQueueError."""
        raise TaskQueueError(_AMBIGUOUS if has_app_context() or loaded.app is not None else _UNKNOWN)


class _AppContext(Extension):
    """Runs each attempt in an application context. It is the first extension, so others run inside the context."""

    def __init__(self, find: Callable[[], Flask]) -> None:
        self._find = find

    def attempt(self, task: RunningTask) -> AbstractContextManager[object]:
        """Return an application context, which is torn down with the exception of the task, if any."""
        return self._find().app_context()

    @contextlib.contextmanager
    def process(self) -> Iterator[None]:
        """Drop the connections that a factory has opened in the fork server: children must not share them."""
        if os.getpid() != _IMPORTED_BY:
            app = self._find()
            with app.app_context():
                for engine in getattr(app.extensions.get("sqlalchemy"), "engines", {}).values():
                    engine.dispose(close=False)
        yield


# -- the URL ---------------------------------------------------------------------------------------


def _url_of(app: Flask) -> str:
    """Return the URL of the application's database. Raises ConfigurationError if there is none."""
    if url := app.config.get("DBTASKQUEUE_URL"):
        return str(url)
    if url := app.config.get("SQLALCHEMY_DATABASE_URI"):
        return _url_from(url, app.instance_path)
    if url := os.environ.get("DBTASKQUEUE_URL"):
        return url
    raise ConfigurationError("the config of the Flask application must have DBTASKQUEUE_URL, a database URL")


def _url_from(uri: Any, directory: str) -> str:
    """Return our URL of a database of Flask-SQLAlchemy, where a relative file is in the instance directory."""
    uri = uri["url"] if isinstance(uri, Mapping) else uri
    text = uri.render_as_string(hide_password=False) if hasattr(uri, "render_as_string") else str(uri)
    found = _SQLITE.fullmatch(text)
    if found is None:
        return re.sub(r"(?<=[?&])charset=\w*&?", "", re.sub(r"^(\w+)\+\w+:", r"\1:", text)).rstrip("?&")
    file = found["file"] or ""
    if not file or file.startswith((":memory:", "file:")):
        raise ConfigurationError(
            f"SQLALCHEMY_DATABASE_URI is {text!r}, which a worker cannot open: set DBTASKQUEUE_URL, such as"
            " sqlite:////tmp/tasks.sqlite"
        )
    if not os.path.isabs(file):
        os.makedirs(directory, exist_ok=True)
    return f"sqlite:///{quote(os.path.join(directory, file))}"


# -- the command line, and child processes ---------------------------------------------------------


class LoadedApp:
    """The application that the ``flask`` command has loaded, in a worker and in its child processes.

    A child resolves the path ``loaded.queue`` in this module, and so loads the application in the same way: from
    ``--app``, ``FLASK_APP``, ``wsgi.py`` or ``app.py``. Then it finds task functions that a factory defines, too.
    """

    def __init__(self) -> None:
        self.app: Flask | None = None

    @property
    def queue(self) -> TaskQueue:
        """The queue of the application. Raises AttributeError if ``flask tasks`` has not loaded one."""
        if self.app is None and _PATH not in os.environ:
            raise AttributeError("no application was loaded by 'flask tasks'")
        found: TaskQueue = self.load().extensions[NAME]
        return found

    def load(self) -> Flask:
        """Return the application; load it if this process has not. Raises what that raises."""
        if self.app is None:
            path = os.environ.get(_PATH, os.environ.get("FLASK_APP"))
            if path is None:
                raise TaskQueueError(_UNKNOWN)
            self.app = ScriptInfo(app_import_path=path).load_app()
        return self.app

    def note(self, app: Flask, info: ScriptInfo) -> None:
        """Note which application was loaded, and how, if child processes can load it in the same way."""
        path = info.app_import_path
        if info.create_app is not None:
            module, name = info.create_app.__module__, info.create_app.__qualname__
            path = None if module == "__main__" or "<" in name else f"{module}:{name}"
        elif path is None:  # as Flask has found it
            path = next((f"{name}.py" for name in ("wsgi", "app") if name in sys.modules), None)
        if path is not None:
            self.app, os.environ[_PATH] = app, path


loaded = LoadedApp()


class _Tasks(click.Command):
    """``flask tasks``: all commands of dbtaskqueue, which are imported when they are needed."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context of the group of commands."""
        from ..cli import command_line_for

        info = (parent.find_object(ScriptInfo) if parent is not None else None) or ScriptInfo()
        app = app_ctx.app if has_app_context() else info.load_app()
        loaded.note(app, info)
        group = command_line_for(app.extensions[NAME], "tasks", program=("flask", "tasks"))
        context = group.make_context(info_name, args, parent, **extra)
        if not has_app_context():  # as in app.test_cli_runner()
            context.with_resource(app.app_context())
        return context
