"""A real Django project under manage.py: migrations, views in transactions, workers that are killed and deployed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from helpers import until
from integrations.django.shop import NEWEST, OLDEST, PATIENCE, Shop, database_for

DEFAULT = [("sqlite", "process"), ("sqlite", "asyncio"), ("postgresql", "process"), ("mariadb", "thread")]
"""The engines and executors of the default run."""
Opener = Callable[..., Shop]


@pytest.fixture
def url(engine: str, tmp_path: Path) -> Iterator[str]:
    with database_for(engine, tmp_path) as url:
        yield url


@pytest.fixture
def open_shop(url: str, tmp_path: Path) -> Iterator[Opener]:
    """Return a function that makes the project with a Django version and settings, and migrates it."""
    shops: list[Shop] = []

    def open_shop(django: str = NEWEST, **settings: object) -> Shop:
        shop = Shop(tmp_path, url, django, **settings)
        shops.append(shop)
        shop.migrate()
        return shop

    yield open_shop
    for shop in shops:
        shop.close()


def enqueue(shop: Shop, call: str) -> str:
    """Enqueue a call such as ``refuse.enqueue("no")``; return the id of its result."""
    return str(shop.evaluate(f"from shop.tasks import *\nvalue = {call}.id"))


@pytest.mark.parametrize("django", [OLDEST, NEWEST])
def test_views_enqueue_in_their_transaction_and_a_worker_runs_the_tasks(
    open_shop: Opener, request: pytest.FixtureRequest, engine: str, django: str
) -> None:
    """With ATOMIC_REQUESTS, a task exists if and only if its request, or its savepoint, is committed."""
    if not request.config.option.all_engines and (engine, django) == ("mariadb", OLDEST):
        pytest.skip("without --all-engines, the oldest version runs on two engines")
    shop = open_shop(django, **{"DATABASES.default.ATOMIC_REQUESTS": True})
    with shop.serving() as server:
        status, created = server.get("/orders/new?address=Ann")
        assert (status, created["inside"]) == (200, "READY")
        assert server.get("/orders/new?address=Bob&fails=1")[0] == 500
        status, split = server.get("/orders/split")
        assert status == 200
        assert server.get(f"/results/{created['task']}")[1]["status"] == "READY"
        listed = json.loads(shop.manage("dbtaskqueue", "list", "--json"))
        assert sorted(str(task["id"]) for task in listed) == sorted([created["task"], *split["tasks"]])
        shop.manage("dbtaskqueue", "worker", "--burst")
        _, done = server.get(f"/results/{created['task']}")
        assert done == {"status": "SUCCESSFUL", "value": {"order": created["order"], "length": 15}, "errors": 0}
    assert shop.receipts() == ["Receipt for Ann", "Receipt for first", "Receipt for third"]
    assert "No changes detected" in shop.manage("makemigrations", "--check", "--dry-run")


@pytest.mark.one_engine("processes and signals decide, not SQL")
def test_another_worker_finishes_the_task_of_a_killed_one(open_shop: Opener) -> None:
    shop = open_shop()
    id = enqueue(shop, "wait_for_file.enqueue('go')")
    first = shop.worker("--executor", "thread")
    shop.until_started("go")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(PATIENCE)
    (shop.directory / "go").touch()
    shop.worker()
    until(lambda: shop.task(id).state == "done", within=PATIENCE)
    assert shop.outcomes(id) == ["lost", "done"]
    assert shop.task(id).result == 2


@pytest.mark.one_engine("processes and signals decide, not SQL")
def test_a_deploy_returns_running_tasks_without_spending_an_attempt(open_shop: Opener) -> None:
    shop = open_shop()
    id = enqueue(shop, "wait_for_file.enqueue('go')")
    first = shop.worker("--drain-timeout", "0s")
    shop.until_started("go")
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0, shop.log()
    assert shop.task(id).state == "pending"
    (shop.directory / "go").touch()
    shop.manage("dbtaskqueue", "worker", "--burst")
    assert shop.task(id).result == 1


@pytest.mark.parametrize("executor", ["thread", "process", "asyncio"])
def test_tasks_use_the_orm_in_each_executor(
    open_shop: Opener, request: pytest.FixtureRequest, engine: str, executor: str
) -> None:
    """Plain and async functions use Django's connections."""
    if not request.config.option.all_engines and (engine, executor) not in DEFAULT:
        pytest.skip("without --all-engines, each executor runs on one engine")
    shop = open_shop()
    code = (
        "from shop.models import Order\nfrom shop.tasks import *\n"
        "ids = [Order.objects.create(address=name).id for name in 'abcd']\n"
        "value = [t.enqueue(id).id for t, id in zip([write_receipt, write_receipt_async] * 2, ids)]\n"
        "value += [describe.enqueue().id, add_receipts.enqueue(ids).id]"
    )
    ids = shop.evaluate(code)
    shop.manage("dbtaskqueue", "worker", "--burst", "--executor", executor, "--concurrency", "2")
    assert shop.receipts() == [f"Receipt for {name}" for name in "abcd"]
    assert [shop.task(id).state for id in ids] == ["done"] * 6
    progress = shop.task(ids[-1]).progress
    assert progress is not None
    assert progress[:3] == (4, 4, "receipts")


@pytest.mark.engine("postgresql")
def test_djangos_connection_pool_works(open_shop: Opener) -> None:
    """The connections of a pool are borrowed for a transaction, and no child inherits one."""
    options = {"pool": {"min_size": 1, "max_size": 4}, "prepare_threshold": 5}  # the queue does not take either
    shop = open_shop(**{"DATABASES.default.OPTIONS": options})
    code = (
        "from django.db import transaction\nfrom shop.models import Order\nfrom shop.tasks import *\n"
        "with transaction.atomic():\n    order = Order.objects.create(address='pooled')\n"
        "    value = write_receipt.enqueue(order.id).id"
    )
    id = shop.evaluate(code)
    shop.manage("dbtaskqueue", "worker", "--burst")
    assert shop.receipts() == ["Receipt for pooled"]
    assert shop.task(id).state == "done"


@pytest.mark.one_engine("files are watched, not the database")
def test_the_worker_restarts_when_code_changes_in_debug(open_shop: Opener) -> None:
    """A running task returns to its queue without spending an attempt."""
    shop = open_shop(DEBUG=True)
    waiting = enqueue(shop, "wait_for_file.enqueue('go')")
    shop.worker("--drain-timeout", "0s")
    shop.until_started("go")
    tasks = shop.directory / "shop" / "tasks.py"
    tasks.write_text(tasks.read_text().replace("VERSION = 1", "VERSION = 2"))
    shop.until_started("go", 2)
    (shop.directory / "go").touch()
    described = enqueue(shop, "describe.enqueue()")
    until(lambda: shop.task(described).state == "done", within=PATIENCE)
    assert shop.task(described).result["version"] == 2
    assert shop.task(waiting).result == 1


@pytest.mark.one_engine("files are watched, not the database")
def test_the_worker_of_a_reloader_ends_with_it(open_shop: Opener) -> None:
    shop = open_shop(DEBUG=True)
    enqueue(shop, "wait_for_file.enqueue('go')")
    worker = shop.worker("--drain-timeout", "0s")
    shop.until_started("go")
    children = psutil.Process(worker.pid).children(recursive=True)
    assert children
    worker.send_signal(signal.SIGTERM)
    worker.wait(PATIENCE)
    psutil.wait_procs(children, timeout=PATIENCE)
    assert [child for child in children if child.is_running() and child.status() != "zombie"] == []


@pytest.mark.parametrize("django", [OLDEST, NEWEST])
def test_the_tests_of_the_project_pass(
    open_shop: Opener, request: pytest.FixtureRequest, engine: str, django: str
) -> None:
    """The admin and the helpers for tests, under Django's own test runner."""
    if not request.config.option.all_engines and (engine, django) not in [("sqlite", OLDEST), ("postgresql", NEWEST)]:
        pytest.skip("without --all-engines, each version runs on one engine")
    shop = open_shop(django)
    done = shop.run("test", "--noinput")
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr
    if engine == "sqlite":  # Django removes the file of the test database, and we our connections to it
        assert list(shop.directory.parent.glob("*.test*")) == []


PARALLEL = """
import time
from pathlib import Path
from django.tasks import default_task_backend
from django.test import TransactionTestCase
from shop.tasks import describe

class Meeting:
    def test_the_queue_has_only_the_task_of_this_process(self):
        describe.enqueue()
        Path(f"{type(self).__name__}.here").touch()
        ended = time.monotonic() + 60
        while len(list(Path().glob("*.here"))) < 2 and time.monotonic() < ended:
            time.sleep(0.01)
        number = len(default_task_backend.queue.find(all_queues=True).tasks)
        Path(f"{type(self).__name__}.{number}").touch()  # the runner could not pass on a failure

class First(Meeting, TransactionTestCase): pass
class Second(Meeting, TransactionTestCase): pass
"""


@pytest.mark.one_engine("only SQLite has databases in memory")
def test_parallel_tests_in_memory_have_queues_of_their_own(open_shop: Opener) -> None:
    shop = open_shop(**{"DATABASES.default.TEST": {"NAME": None}})
    (shop.directory / "shop" / "tests_parallel.py").write_text(PARALLEL)
    done = shop.run("test", "--noinput", "--parallel", "2", "shop.tests_parallel")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in shop.directory.glob("*.[0-9]")} == {"First.1", "Second.1"}


@pytest.mark.one_engine("the backend's settings decide, not the engine")
def test_without_tables_commands_and_calls_name_the_command_of_the_project(open_shop: Opener, tmp_path: Path) -> None:
    shop = open_shop()
    shell = ("shell", "--verbosity", "0", "-c", "from shop.tasks import describe; describe.enqueue()")
    no_file: dict[str, object] = {"DATABASES.default.NAME": f"{tmp_path}/x.sqlite"}
    url: dict[str, object] = {"TASKS.default.OPTIONS": {"url": f"sqlite:///{tmp_path}/x.sqlite"}}
    for settings, command, commands in (
        (no_file, "migrate", [("worker", "--burst"), ("enqueue", "1")]),
        (url, "dbtaskqueue migrate", [("list",)]),
    ):
        expected = f"{tmp_path}/x.sqlite does not exist; run: python manage.py {command}\n"
        for words in commands:
            done = shop.run("dbtaskqueue", *words, **settings)
            assert (done.returncode, done.stderr) == (1, f"Error: {expected}")
        assert f"SchemaError: {expected}" in shop.run(*shell, **settings).stderr
    shop.manage("dbtaskqueue", "migrate", **url)
    shop.manage(*shell, **url)
    done = shop.run("dbtaskqueue", "--backend", "mail", "list")
    assert (done.returncode, done.stderr) == (1, "CommandError: TASKS has no backend 'mail'; there are: 'default'\n")


@pytest.mark.one_engine("settings decide, not the engine")
def test_checks_name_what_cannot_work(open_shop: Opener) -> None:
    shop = open_shop()
    assert "no issues" in shop.manage("check")

    def problems(**settings: object) -> str:
        return shop.run("check", **settings).stderr

    apps = ["django.contrib.contenttypes", "shop"]
    # Django runs the checks of backends only once django.tasks is imported, here not by our app
    code = "import django.tasks; from django.core.management import call_command; call_command('check')"
    assert "dbtaskqueue.E001" in shop.run("shell", "-c", code, INSTALLED_APPS=apps, ROOT_URLCONF=None).stderr
    assert "dbtaskqueue.E002" in problems(**{"TASKS.default.OPTIONS": {"database": "warehouse"}})
    assert "dbtaskqueue.E002" in problems(**{"TASKS.default.OPTIONS": {"url": "oracle://tasks"}})
    nameless = {"ENGINE": "django.db.backends.postgresql", "NAME": "", "OPTIONS": {"service": "shop"}}
    assert "(dbtaskqueue.E002) TASKS['default']: DATABASES['default'] cannot be used: dbtaskqueue needs the NAME" in (
        problems(DATABASES={"default": nameless})
    )
    assert "modules must be a list of names, not 'shop.jobs'" in problems(
        **{"TASKS.default.OPTIONS": {"modules": "shop.jobs"}}
    )
    (shop.directory / "shop" / "jobs.py").write_text("from shop import models\nmodels.Invoice\n")
    modules = problems(**{"TASKS.default.OPTIONS": {"modules": ["shop.tasks", "shop.jobs", "shop.missing"]}})
    assert modules.count("(dbtaskqueue.E004)") == 2
    assert "'shop.jobs', which cannot be imported: AttributeError: module 'shop.models' has no" in modules
    assert "'Invoice' (jobs.py, line 2)" in modules
    assert "'shop.missing', which cannot be imported: ModuleNotFoundError" in modules
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": "x.sqlite"}
    assert "dbtaskqueue.W001" in problems(DATABASES={"default": sqlite})
    assert "dbtaskqueue.W002" in problems(DATABASES={"default": {**sqlite, "NAME": ":memory:"}})
