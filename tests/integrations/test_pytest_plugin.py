"""The pytest plugin, in runs of pytest of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import pytest
from helpers import source_of
from integrations.environments import environment
from pages import ROOT
from servers import requirements

SHOP = """
import os

from dbtaskqueue import RetryPolicy, TaskQueue

queue = TaskQueue("sqlite:////nonexistent/shop.sqlite", open=False)


@queue.task(retry=RetryPolicy(delay=60))
def greet(name):
    if not name:
        raise ValueError("no name")
    greeted.append(name)
    return [f"hello {name}", os.getpid()]


greeted = []
"""
MARKED = """
import pytest

import shop

pytestmark = pytest.mark.dbtaskqueue(queue="shop:queue")
"""


class Project:
    """A directory with tests, and a run of pytest in it with this plugin and no others."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.write("shop.py", SHOP)
        self.write("pytest.ini", "[pytest]\naddopts = --strict-markers --import-mode=importlib\npythonpath = .\n")

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        (self.directory / name).write_text(textwrap.dedent(text))

    def run(self, *options: str, plugin: bool = True, autoload: bool = False, fails: int = 0) -> str:
        """Run pytest, and return what it prints. Check its exit code."""
        plugins = ["-p", "pytest_dbtaskqueue"] if plugin else []
        environment = {**os.environ, "PYTHONPATH": str(source_of().parent)}
        if not autoload:
            environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugins, *options],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == fails, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """An empty project, which has a module with a task function."""
    return Project(tmp_path)


def test_it_does_nothing_unasked(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import sys

        def test_nothing_is_imported():
            assert "pytest_dbtaskqueue" in sys.modules
            assert [name for name in sys.modules if name.startswith("dbtaskqueue")] == []
        """,
    )
    assert "1 passed" in project.run()
    names = {path.name for path in project.directory.iterdir()}
    assert names - {"__pycache__"} == {"shop.py", "pytest.ini", "test_it.py"}


def test_fixtures_with_a_queue_of_their_own(project: Project) -> None:
    project.write(
        "test_it.py",
        """
        import pytest

        def test_run(task_queue, run_tasks, assert_enqueued):
            @task_queue.task(name="double")
            def double(number):
                return 2 * number

            task = double.enqueue(4)
            assert assert_enqueued("double") == task
            with pytest.raises(AssertionError, match="1 task was enqueued"):
                assert_enqueued("half")
            [done] = run_tasks(limit=1)
            assert done.result == 8
            double.using(queue="mail").enqueue(5)
            assert [task.result for task in run_tasks(queue="mail")] == [10]

        def test_the_next_test_has_another_database(task_queue):
            assert task_queue.tasks() == []
        """,
    )
    assert "2 passed" in project.run()


def test_the_queue_of_the_program(project: Project) -> None:
    project.write(
        "test_it.py",
        f"""
        {textwrap.indent(MARKED, " " * 8).strip()}

        def test_run(task_queue, run_tasks, assert_enqueued):
            assert task_queue is shop.queue
            shop.greet.enqueue("ann")
            assert_enqueued(shop.greet.bind("ann"))
            assert run_tasks()[0].result[0] == "hello ann"

        def test_an_exception_is_shown(run_tasks):
            shop.greet.enqueue("")
            with pytest.raises(ValueError, match="no name"):
                run_tasks()

        def test_the_marker_suffices():
            assert not shop.queue.tasks()

        @pytest.mark.dbtaskqueue(inline=True)
        def test_inline():
            task = shop.greet.enqueue("bob")
            assert task.state == "done"
            assert "bob" in shop.greeted

        def test_a_worker_in_a_thread(task_worker):
            import os

            task = shop.greet.using(queue="mail").enqueue("cid")
            assert task.get_result(timeout=30) == ["hello cid", os.getpid()]

        @pytest.mark.dbtaskqueue(executor="process", concurrency=2)
        def test_a_worker_with_processes(task_worker):
            import os

            assert task_worker.concurrency == 2
            result = shop.greet.enqueue("dan").get_result(timeout=30)
            assert result[0] == "hello dan"
            assert result[1] != os.getpid()
        """,
    )
    assert "6 passed" in project.run()
    assert "@pytest.mark.dbtaskqueue(queue=" in project.run("--markers")


def test_the_queue_of_the_whole_project(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\ndbtaskqueue_queue = shop:queue\npythonpath = .\n")
    project.write(
        "conftest.py",
        """
        import pytest

        @pytest.fixture
        def task_queue_url(tmp_path):
            return f"sqlite:///{tmp_path}/mine.sqlite"
        """,
    )
    project.write(
        "test_it.py",
        """
        import shop

        def test_it(task_queue):
            assert task_queue is shop.queue
            assert task_queue.url.endswith("/mine.sqlite")
        """,
    )
    assert "1 passed" in project.run()


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ('queue="shop"', "the queue must be given as package.module:queue, not 'shop'"),
        ('queue="shop:greeted"', "'shop:greeted' is list, not a TaskQueue"),
        ('queue="shop:missing"', "'shop:missing' is NoneType, not a TaskQueue"),
        ("colour=1", "the marker dbtaskqueue has only the options concurrency, executor, inline, queue"),
    ],
)
def test_a_mistake_in_the_marker_is_explained(project: Project, marker: str, message: str) -> None:
    project.write("test_it.py", f"import pytest\n\n@pytest.mark.dbtaskqueue({marker})\ndef test_it():\n    pass\n")
    assert message in project.run(fails=1)


def test_a_worker_that_cannot_run_fails_its_test(project: Project) -> None:
    project.write("test_it.py", "def test_it(task_worker):\n    pass\n")
    assert "has nothing to run" in project.run(fails=1)


def test_processes_of_xdist_have_their_own_databases(project: Project) -> None:
    requirements.library("xdist")
    project.write(
        "test_it.py",
        f"""
        {textwrap.indent(MARKED, " " * 8).strip()}

        @pytest.mark.parametrize("number", range(8))
        def test_it(number, run_tasks, task_queue):
            shop.greet.enqueue(str(number))
            assert [task.result[0] for task in run_tasks()] == [f"hello {{number}}"]
            print(task_queue.url)
        """,
    )
    output = project.run("-p", "xdist", "-n", "2", "-rP")
    assert "8 passed" in output
    assert len(set(re.findall(r"sqlite:\S+", output))) == 8
    assert len(set(re.findall(r"popen-gw\d/test_it", output))) == 2


def test_async_tests(project: Project) -> None:
    requirements.library("pytest_asyncio")
    project.write(
        "test_it.py",
        f"""
        {textwrap.indent(MARKED, " " * 8).strip()}

        @shop.queue.task
        async def later(name):
            import asyncio
            await asyncio.sleep(0)
            return name

        @pytest.mark.asyncio
        async def test_run(run_tasks):
            later.enqueue("ann")
            shop.greet.enqueue("bob")
            assert [task.state for task in run_tasks()] == ["done", "done"]

        @pytest.mark.asyncio
        @pytest.mark.dbtaskqueue(executor="asyncio")
        async def test_worker(task_worker):
            import asyncio
            task = later.enqueue("ann")
            assert await asyncio.to_thread(task.get_result, 30) == "ann"
        """,
    )
    project.write("pytest.ini", "[pytest]\npythonpath = .\nasyncio_default_fixture_loop_scope = function\n")
    assert "2 passed" in project.run("-p", "pytest_asyncio.plugin")


MEASURE = """
import coverage
import pytest

@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config):
    measured = coverage.Coverage(source=["shop", "dbtaskqueue.retry"], data_file=None)
    measured.start()  # after all plugins are imported, as pytest-cov does
    early_config.measured = measured
    return (yield)

def pytest_unconfigure(config):
    config.measured.stop()
    for name in ("shop", "dbtaskqueue.retry"):
        import sys
        _, statements, _, missing, _ = config.measured.analysis2(sys.modules[name])
        print("MISSING", name, len(statements) > 5, missing)
"""


def test_the_coverage_of_a_package_is_not_lowered(project: Project) -> None:
    """The measured lines are the same with and without the plugin, also those that run at the import."""
    requirements.library("coverage")
    project.write("measure.py", MEASURE)
    test = "import shop\n\ndef test_it(tmp_path{}):\n    assert shop.greet('ann')\n    shop.queue.open(f'sqlite:///{{tmp_path}}/x')\n"
    found = []
    for plugin in (True, False):
        project.write("test_it.py", test.format(", task_queue" if plugin else ""))
        output = project.run("-p", "measure", plugin=plugin)
        found.append(re.findall("MISSING.*", output))
    assert found[0] == found[1]
    assert len(found[0]) == 2
    assert found[0][0].startswith("MISSING shop True [")


def test_it_is_found_by_its_entry_point_and_can_be_disabled(project: Project) -> None:
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    installed = project.directory / "installed-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
    lines = [f"{name} = {module}" for name, module in entry_points.items()]
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    project.write("test_it.py", "def test_it(task_queue):\n    pass\n")
    assert "1 passed" in project.run(plugin=False, autoload=True)
    output = project.run("-p", "no:dbtaskqueue", plugin=False, autoload=True, fails=1)
    assert "fixture 'task_queue' not found" in output


def test_a_test_with_a_worker_is_not_in_a_transaction_of_django(project: Project) -> None:
    """What pytest-django needs is its marker; it is added only if that plugin is loaded."""
    project.write(
        "django_.py",
        """
        def pytest_configure(config):
            config.addinivalue_line("markers", "django_db(transaction=False): as pytest-django registers it")
            config.pluginmanager.register(object(), "django")
        """,
    )
    project.write(
        "test_it.py",
        f"""
        {textwrap.indent(MARKED, " " * 8).strip()}

        def transaction(request):
            marker = request.node.get_closest_marker("django_db")
            return marker and marker.kwargs

        def test_with(request, task_worker):
            assert transaction(request) == {{"transaction": True}}

        def test_without(request, run_tasks):
            assert transaction(request) is None
        """,
    )
    assert "2 passed" in project.run("-p", "django_")
    assert "1 failed, 1 passed" in project.run(fails=1)


def test_the_distribution_has_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"dbtaskqueue": "pytest_dbtaskqueue"}
    assert "src/pytest_dbtaskqueue.py" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_it_is_loaded_where_the_package_is_installed(request: pytest.FixtureRequest, project: Project) -> None:
    if not request.config.option.all_engines:
        pytest.skip("installing takes long: it is tested with --all-engines")
    python = environment("pytest==8.2.0", str(ROOT), editable=False)
    project.write("test_it.py", "def test_it(task_queue, run_tasks):\n    assert run_tasks() == []\n")
    command = [python, "-m", "pytest", "-p", "no:cacheprovider"]
    for options, code in ([], 0), (["-p", "no:dbtaskqueue"], 1):
        done = subprocess.run([*command, *options], cwd=project.directory, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
