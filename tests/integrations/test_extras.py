"""Each extra installs alone in an empty environment, imports, and does its one thing; a missing library says so.

Without --all-engines, only extras whose libraries install in seconds are installed.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from helpers import run_python
from pages import ROOT

from .environments import environment, newest_python

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

QUEUE = """
from dbtaskqueue import TaskQueue, Worker
queue = TaskQueue("sqlite:///:memory:")
"""
DOES = {
    "postgresql": "import psycopg; from dbtaskqueue._store.postgresql import store",
    "mariadb": "import pymysql; from dbtaskqueue._store.mariadb import store",
    "dashboard": QUEUE + "from dbtaskqueue.dashboard import Dashboard; Dashboard(queue, auth=lambda request: None)",
    "wsgi": "import a2wsgi",
    "metrics": QUEUE + "from dbtaskqueue.metrics import *",
    "sqlalchemy": """
import tempfile
from sqlalchemy import create_engine
from dbtaskqueue import TaskQueue
url = f"sqlite:///{tempfile.mkdtemp()}/file.sqlite"
queue = TaskQueue(url)
with create_engine(url).begin() as connection:
    queue.enqueue(1, connection=connection)
assert queue.stats().pending == 1
""",
    "django": "import dbtaskqueue.integrations.django",
    "fastapi": "import dbtaskqueue.integrations.starlette",
    "flask": """
from flask import Flask
from dbtaskqueue.integrations.flask import FlaskTaskQueue
queue = FlaskTaskQueue()
app = Flask("app")
app.config["DBTASKQUEUE_URL"] = "sqlite:///:memory:"
queue.init_app(app)
@queue.task
def double(value): return 2 * value
with app.app_context():
    assert double.enqueue(1).state == "pending"
""",
    "msgspec": """
from datetime import date
from dbtaskqueue import TaskQueue
from dbtaskqueue.integrations.msgspec import MsgspecCoder
queue = TaskQueue("sqlite:///:memory:", coders=[MsgspecCoder()])
@queue.task
def report(day: date): ...
assert report.enqueue(date(2026, 1, 2)).payload == {"args": ["2026-01-02"], "kwargs": {}}
""",
    "pydantic": """
from datetime import date
from dbtaskqueue import TaskQueue
from dbtaskqueue.integrations.pydantic import PydanticCoder
queue = TaskQueue("sqlite:///:memory:", coders=[PydanticCoder()])
@queue.task
def report(day: date): ...
assert report.enqueue(date(2026, 1, 2)).payload == {"args": ["2026-01-02"], "kwargs": {}}
""",
    "opentelemetry": QUEUE
    + """
from dbtaskqueue.integrations.opentelemetry import OpenTelemetry
queue.use(OpenTelemetry())
queue.enqueue(1)
Worker(queue).run(str, burst=True)
assert queue.stats().done == 1
""",
    "sentry": QUEUE
    + """
from dbtaskqueue.integrations.sentry import SentryExtension
queue.use(SentryExtension())
queue.enqueue(1)
Worker(queue).run(str, burst=True)
assert queue.stats().done == 1
""",
    "tqdm": """
from dbtaskqueue.integrations.tqdm import tqdm
assert list(tqdm(range(3))) == [0, 1, 2]
""",
    "reload": "import watchfiles; import dbtaskqueue.cli",
}
"""What a user of each extra does first."""
QUICK = ["tqdm", "msgspec", "metrics"]
NEEDS_PYTHON = {"django": (3, 12)}


def test_every_extra_is_tested() -> None:
    assert set(DOES) == set(EXTRAS)


@pytest.mark.parametrize("extra", sorted(DOES))
def test_an_extra_alone_is_enough(extra: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if extra not in QUICK and not request.config.option.all_engines:
        pytest.skip("the other extras are installed with --all-engines")
    python = newest_python(at_least=NEEDS_PYTHON.get(extra, (3, 11)))
    if python is None:
        pytest.skip(f"NO PYTHON {NEEDS_PYTHON[extra]} HERE: {extra} IS NOT TESTED")
    must_exist(extra)
    inside = environment(*EXTRAS[extra], python=python)
    done = subprocess.run(
        [inside, "-c", DOES[extra]], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


MODULES = {
    "sqlalchemy": "sqlalchemy",
    "flask": "flask",
    "starlette": "fastapi",
    "msgspec": "msgspec",
    "pydantic": "pydantic",
    "opentelemetry": "opentelemetry",
    "sentry": "sentry",
    "tqdm": "tqdm",
    "django": "django",
}
"""The modules of integrations, and the extras that they need."""
ADAPTERS = {"aiomysql", "aiosqlite", "asyncpg", "django_connections", "psycopg", "psycopg2"}
"""Modules that are imported only for a connection that their library has made."""
WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {libraries!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
try:
    import dbtaskqueue.integrations.{module}
    {then}
except ImportError as error:
    print(error)
"""
THEN = {"django": "from dbtaskqueue.integrations.django import DatabaseBackend"}


def must_exist(extra: str) -> None:
    """Skip the test of an extra whose integration is not part of this checkout."""
    named = [module for module, needed in MODULES.items() if needed == extra]
    if named and not {*named} & integrations():
        pytest.skip(f"THERE IS NO MODULE FOR {extra}: NOT TESTED")


def integrations() -> set[str]:
    """Return the names of the modules and packages of integrations."""
    directory = ROOT / "src" / "dbtaskqueue" / "integrations"
    return {path.stem for path in directory.iterdir() if not path.name.startswith("_")}


def libraries_of(extra: str) -> list[str]:
    """Return the first parts of the modules that an extra's requirements install."""
    names = [re.split(r"[\[>=]", requirement)[0] for requirement in EXTRAS[extra]]
    return sorted({name.replace("-", "_").removesuffix("_api").removesuffix("_instrumentation") for name in names})


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_missing_library_names_the_extra(module: str) -> None:
    extra = MODULES[module]
    must_exist(extra)
    code = WITHOUT.format(libraries=libraries_of(extra), module=module, then=THEN.get(module, "pass"))
    assert f"pip install 'dbtaskqueue[{extra}]'" in run_python(code)


def test_every_integration_with_a_library_is_tested() -> None:
    assert integrations() - {"futures"} - ADAPTERS <= set(MODULES)
