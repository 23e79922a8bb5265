"""A copy of the Django project in ``project``, whose ``manage.py`` runs in processes with the Django of an environment.

shop = Shop(tmp_path, django="django~=6.0.0", url="sqlite:////tmp/site.sqlite")
shop.manage("migrate")
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from engines import execute
from helpers import until
from integrations.environments import environment, newest_python
from psycopg import sql
from servers.ports import free_port
from servers.requirements import REQUIRE, required
from servers.shared import fresh_mariadb_url, shared_postgresql_url

from dbtaskqueue import Task, TaskQueue

OLDEST, NEWEST = "django~=6.0.0", "django>=6.1"
LIBRARIES = ("psycopg[binary,pool]>=3.2", "pymysql>=1.1")
PROJECT = Path(__file__).parent / "project"
PATIENCE = 120.0


def python_for(django: str) -> str:
    """Return the Python of an environment with this Django. Skip the test if no Python here is new enough."""
    python = newest_python((3, 12))
    if python is None:
        line = "NO PYTHON >= 3.12 IS INSTALLED: Django 6 needs it; NOT TESTED"
        if required("libraries"):
            pytest.fail(f"{line} (but {REQUIRE} requires it)", pytrace=False)
        pytest.skip(line)
    return environment(django, *LIBRARIES, python=python)


@contextlib.contextmanager
def database_for(engine: str, directory: Path) -> Iterator[str]:
    """Yield the URL of an empty database for Django's tables and ours."""
    if engine == "sqlite":
        yield f"sqlite:///{directory}/site.sqlite"
    elif engine == "mariadb":
        with fresh_mariadb_url() as url:
            yield url
    else:
        base, name = shared_postgresql_url(), f"t_{uuid.uuid4().hex}"
        with psycopg.connect(base, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            try:
                yield urlsplit(base)._replace(path=f"/{name}").geturl()
            finally:
                drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                connection.execute(drop)


def migrated_file(django: str) -> Path:
    """Return an SQLite file that ``migrate`` has made with this Django. Tests copy it, since that is much faster."""
    place = Path(tempfile.gettempdir(), f"dbtaskqueue-migrated-{os.getpid()}")
    directory = place / hashlib.sha1(django.encode()).hexdigest()
    file = directory / "site.sqlite"
    if not file.exists():
        shop = Shop(directory, f"sqlite:///{file}", django)
        shop.manage("migrate", "--verbosity", "0")
        TaskQueue(shop.url, create=False).close()  # this checkpoints the write-ahead log
        atexit.register(shutil.rmtree, place, ignore_errors=True)
    return file


class Shop:
    """The project in a directory of its own, on one database. ``settings`` replace those of ``settings.py`` by path."""

    def __init__(self, directory: Path, url: str, django: str = NEWEST, **settings: object) -> None:
        self.directory = directory / "project"
        self.url = url
        self._django = django
        self._python = python_for(django)
        self._processes: list[subprocess.Popen[str]] = []
        self._settings = settings
        shutil.copytree(PROJECT, self.directory, ignore=shutil.ignore_patterns("__pycache__"))

    def _variables(self, settings: dict[str, object]) -> dict[str, str]:
        given = {name: value for name, value in os.environ.items() if not name.startswith(("DBTASKQUEUE_", "PYTHON"))}
        return {
            **given,
            "PYTHONDONTWRITEBYTECODE": "1",
            "SHOP_DATABASE": self.url,
            "SHOP_SETTINGS": json.dumps({**self._settings, **settings}),
        }

    def run(self, *words: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run a command of ``manage.py``, whatever its exit status is."""
        command = [self._python, "manage.py", *words]
        return subprocess.run(
            command,
            cwd=self.directory,
            env=self._variables(settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def manage(self, *words: str, **settings: object) -> str:
        """Run a command of ``manage.py``, which must succeed; return what it prints."""
        done = self.run(*words, **settings)
        assert done.returncode == 0, f"manage.py {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def migrate(self) -> None:
        """Make the tables."""
        if self.url.startswith("sqlite"):
            shutil.copy(migrated_file(self._django), urlsplit(self.url).path.removeprefix("/"))
        else:
            self.manage("migrate", "--verbosity", "0")

    def task(self, id: str) -> Task:
        """Return a task, read in this process."""
        with TaskQueue(self.url, create=False) as queue:
            return queue.get(int(id))

    def outcomes(self, id: str) -> list[str | None]:
        """Return the outcomes of the attempts of a task."""
        with TaskQueue(self.url, create=False) as queue:
            return [attempt.outcome for attempt in queue.get(int(id)).attempts()]

    def receipts(self) -> list[str]:
        """Return the receipts of all orders, in order."""
        table = "public.shop_order" if self.url.startswith("postgresql") else "shop_order"
        return [receipt for (receipt,) in execute(self.url, f"SELECT receipt FROM {table} ORDER BY id")]

    def evaluate(self, code: str, **settings: object) -> Any:
        """Run code in the project; return the value that it assigned to ``value``."""
        text = f"import json\n{code}\nprint('value:', json.dumps(value))"
        return json.loads(self.manage("shell", "--verbosity", "0", "-c", text, **settings).rpartition("value:")[2])

    def start(self, *words: str, log: str | None = None, **settings: object) -> subprocess.Popen[str]:
        """Start a command of ``manage.py`` in a process group of its own. Its output is in the file ``log``."""
        with open(self.directory / (log or "output.log"), "a") as output:
            process = subprocess.Popen(
                [self._python, "manage.py", *words],
                cwd=self.directory,
                env=self._variables(settings),
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def worker(self, *words: str, **settings: object) -> subprocess.Popen[str]:
        """Start a worker."""
        return self.start("dbtaskqueue", "worker", *words, log="worker.log", **settings)

    def log(self, name: str = "worker.log") -> str:
        """Return what the programs with this log file have printed."""
        file = self.directory / name
        return file.read_text() if file.exists() else ""

    def started(self, name: str) -> list[tuple[int, int]]:
        """Return the attempts and process ids of ``wait_for_file(name)`` that have started."""
        parts = [file.name.split(".")[-2:] for file in self.directory.glob(f"{name}.started.*")]
        return sorted((int(attempt), int(pid)) for attempt, pid in parts)

    def until_started(self, name: str, number: int = 1) -> list[tuple[int, int]]:
        """Wait until that many attempts of ``wait_for_file(name)`` have started."""
        until(lambda: len(self.started(name)) >= number, within=PATIENCE, what=f"the start of {name}")
        return self.started(name)

    @contextlib.contextmanager
    def serving(self, **settings: object) -> Iterator[Server]:
        """Run the development server during the block."""
        port = free_port()
        process = self.start("runserver", "--noreload", f"127.0.0.1:{port}", log="server.log", **settings)
        server = Server(f"http://127.0.0.1:{port}")
        try:
            until(server.answers, within=PATIENCE, what="the answer of the server")
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)

    def close(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


class Server:
    """An HTTP server, and what it answers as JSON."""

    def __init__(self, base: str) -> None:
        self.base = base

    def answers(self) -> bool:
        """Return whether it answers."""
        try:
            return self.get("/results/0")[0] > 0
        except OSError:
            return False

    def get(self, path: str) -> tuple[int, Any]:
        """Return the status and the JSON of an answer; None if it is not JSON."""
        try:
            with urllib.request.urlopen(self.base + path, timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            error.read()
            return error.code, None
