"""Django's own tests of its task framework pass with our backend: ``tests/tasks`` of the version that is installed.

The tests are in Django's source distribution, which is fetched when this runs. ``suite_run.py`` says what it adapts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from integrations.django.shop import NEWEST, OLDEST, python_for
from integrations.environments import CACHE, pip
from servers.shared import shared_mariadb, shared_postgresql

pytestmark = pytest.mark.one_engine("what the tests need of SQL, the conformance tests check on every engine")

PASS = {OLDEST: 63, NEWEST: 68}
"""How many tests of each version pass with our backend. Later versions may have more."""
HERE = Path(__file__).parent
MEMORY = "changes a result in the memory of DummyBackend, and expects to read the change"
NO_RESULTS = "expects that results cannot be read, which they can"
LEFT_OUT = {
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result": MEMORY,
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result_async": MEMORY,
    "test_dummy_backend.DummyBackendTestCase.test_clear": "tests a method of DummyBackend that no other backend has",
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_get_result": NO_RESULTS,
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_refresh_result": NO_RESULTS,
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_pass_run_after": "expects that run_after is refused",
    "test_immediate_backend.ImmediateBackendTestCase.test_throws_keyboard_interrupt": (
        "expects that enqueue raises what the task raises; a worker runs it in another thread"
    ),
    "test_immediate_backend.ImmediateBackendTransactionTestCase.test_doesnt_wait_until_transaction_commit_by_default": (
        "expects that the task runs before its transaction is committed"
    ),
}
"""The tests that contradict a backend with a database, with the reason."""
OWN_BACKEND = "test_custom_backend."
"""The tests of this module bring backends of their own."""


def source(python: str) -> Path:
    """Return the directory ``tests`` of Django's source distribution, of the same version as in the environment."""
    exact = subprocess.check_output([python, "-c", "import django; print(django.__version__)"], text=True).strip()
    directory = CACHE / f"django-{exact}"
    if not directory.exists():
        partial = CACHE / f"django-{exact}.{os.getpid()}"
        command = [*pip(), "--python", python, "download", "--quiet", "--no-deps", "--no-binary", "django"]
        subprocess.run([*command, f"django=={exact}", "--dest", str(partial)], check=True, timeout=300)
        [archive] = partial.glob("*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(partial, filter="data")
        partial.rename(directory)
    [tests] = directory.glob("*/tests")
    return tests


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, object]]:
    """Return Django's settings of an empty database. The servers take part with ``--all-engines`` only."""
    if request.param != "sqlite" and not request.config.option.all_engines:
        pytest.skip("runs with --all-engines")
    test = {"NAME": str(tmp_path / "test.sqlite")}
    if request.param == "sqlite":
        yield {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "main.sqlite"), "TEST": test}
        return
    server = shared_postgresql() if request.param == "postgresql" else shared_mariadb()
    name = f"django_{os.getpid()}"
    parts = urlsplit(server.url())
    server.create_database(name)
    engine = {"postgresql": "postgresql", "mariadb": "mysql"}[request.param]
    try:
        yield {
            "ENGINE": f"django.db.backends.{engine}",
            "NAME": name,
            "USER": parts.username or "",
            "PASSWORD": parts.password or "",
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
        }
    finally:
        server.drop_database(name)


@pytest.mark.parametrize("django", [OLDEST, NEWEST])
def test_the_tests_of_django_pass(django: str, settings: dict[str, object], tmp_path: Path) -> None:
    python = python_for(django)
    tests = source(python)
    outcomes = tmp_path / "outcomes.json"
    variables = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{tests}", "DATABASE": json.dumps(settings)}
    words = [str(HERE / "suite_run.py"), str(outcomes), json.dumps([*LEFT_OUT])]
    done = subprocess.run([python, *words], env=variables, capture_output=True, text=True, timeout=500, check=False)
    assert outcomes.exists(), done.stdout + done.stderr
    found: dict[str, str] = json.loads(outcomes.read_text())
    failed = {name: text for name, text in found.items() if text not in ("passed", "left out")}
    assert not failed, "\n".join(f"{name}:\n{text}" for name, text in failed.items())
    # a name that is no test any more must not stay in the list
    assert set(LEFT_OUT) == {name for name, text in found.items() if text == "left out"}
    passed = [name for name, text in found.items() if text == "passed" and not name.startswith(OWN_BACKEND)]
    assert len(passed) >= PASS[django]
