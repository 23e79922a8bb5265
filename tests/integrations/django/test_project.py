"""A real Django project under manage.py: migrations, views in transactions, workers that are killed and deployed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from helpers import until
from integrations.django.shop import NEWEST, OLDEST, PATIENCE, Shop, database_for

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
        shop.manage("migrate", "--verbosity", "0")
        return shop

    yield open_shop
    for shop in shops:
        shop.close()


def orders(shop: Shop) -> list[list[Any]]:
    """Return address and receipt of all orders, in order."""
    code = "from shop.models import Order\nvalue = list(Order.objects.order_by('id').values_list('address', 'receipt'))"
    found: list[list[Any]] = shop.evaluate(code)
    return found


def enqueue(shop: Shop, call: str) -> str:
    """Enqueue a call such as ``refuse.enqueue("no")``; return the id of its result."""
    return str(shop.evaluate(f"from shop.tasks import *\nvalue = {call}.id"))


def result(shop: Shop, id: str) -> dict[str, Any]:
    """Return what Django's interface says about a task."""
    code = (
        "from django.tasks import default_task_backend\n"
        f"found = default_task_backend.get_result({id!r})\n"
        "value = dict(status=found.status, attempts=found.attempts, errors=[e.exception_class_path for e in found.errors],"
        " value=found.return_value if found.status == 'SUCCESSFUL' else None)"
    )
    answer: dict[str, Any] = shop.evaluate(code)
    return answer


@pytest.mark.parametrize("django", [OLDEST, NEWEST])
def test_views_enqueue_in_their_transaction_and_a_worker_runs_the_tasks(open_shop: Opener, django: str) -> None:
    """With ATOMIC_REQUESTS, a task exists if and only if its request, or its savepoint, is committed."""
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
    receipts = ["Receipt for Ann", "Receipt for first", "Receipt for third"]
    assert [receipt for _, receipt in orders(shop)] == receipts
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
    until(lambda: result(shop, id)["status"] == "SUCCESSFUL", within=PATIENCE)
    assert result(shop, id) == {"status": "SUCCESSFUL", "attempts": 2, "errors": [], "value": 2}


@pytest.mark.one_engine("processes and signals decide, not SQL")
def test_a_deploy_returns_running_tasks_without_spending_an_attempt(open_shop: Opener) -> None:
    shop = open_shop()
    id = enqueue(shop, "wait_for_file.enqueue('go')")
    first = shop.worker("--drain-timeout", "0s")
    shop.until_started("go")
    first.send_signal(signal.SIGTERM)
    assert first.wait(PATIENCE) == 0, shop.log()
    assert result(shop, id)["status"] == "READY"
    (shop.directory / "go").touch()
    shop.manage("dbtaskqueue", "worker", "--burst")
    assert result(shop, id)["value"] == 1


@pytest.mark.parametrize("executor", ["thread", "process", "asyncio"])
def test_tasks_use_the_orm_in_each_executor(open_shop: Opener, engine: str, executor: str) -> None:
    """Plain and async functions use Django's connections, which none of the three leaves open."""
    if executor == "asyncio" and engine == "mariadb":
        pytest.skip("two engines show it")
    shop = open_shop()
    code = (
        "from shop.models import Order\nfrom shop.tasks import *\n"
        "ids = [Order.objects.create(address=name).id for name in 'abcd']\n"
        "value = [t.enqueue(id).id for t, id in zip([write_receipt, write_receipt_async] * 2, ids)]\n"
        "describe.enqueue(); add_receipts.enqueue(ids)"
    )
    ids = shop.evaluate(code)
    shop.manage("dbtaskqueue", "worker", "--burst", "--executor", executor, "--concurrency", "2")
    assert [receipt for _, receipt in orders(shop)] == [f"Receipt for {name}" for name in "abcd"]
    assert [result(shop, id)["status"] for id in ids] == ["SUCCESSFUL"] * 4
    stats = json.loads(shop.manage("dbtaskqueue", "list", "--json", "--queue", "mail"))
    assert [task["state"] for task in stats] == ["done"]


@pytest.mark.one_engine("what fails is Python code")
def test_an_exception_is_final_unless_attempts_are_given(open_shop: Opener) -> None:
    shop = open_shop()
    one = enqueue(shop, "refuse.enqueue('no')")
    three = enqueue(shop, "refuse.using(max_attempts=3, backoff=None).enqueue('no')")
    shop.manage("dbtaskqueue", "worker", "--burst")
    assert result(shop, one) == {"status": "FAILED", "attempts": 1, "errors": ["builtins.ValueError"], "value": None}
    assert result(shop, three)["attempts"] == 1
    assert result(shop, three)["status"] == "READY"


@pytest.mark.engine("postgresql")
def test_djangos_connection_pool_works(open_shop: Opener) -> None:
    """The connections of a pool are borrowed for a transaction, and no child inherits one."""
    shop = open_shop(**{"DATABASES.default.OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}})
    code = (
        "from django.db import transaction\nfrom shop.models import Order\nfrom shop.tasks import *\n"
        "with transaction.atomic():\n    order = Order.objects.create(address='pooled')\n"
        "    value = write_receipt.enqueue(order.id).id"
    )
    id = shop.evaluate(code)
    shop.manage("dbtaskqueue", "worker", "--burst")
    assert result(shop, id)["status"] == "SUCCESSFUL"


@pytest.mark.one_engine("files are watched, not the database")
def test_the_worker_restarts_when_code_changes_in_debug(open_shop: Opener) -> None:
    """With DEBUG, Django's autoreload runs the worker. A running task returns to its queue, without an attempt spent."""
    shop = open_shop(DEBUG=True)
    waiting = enqueue(shop, "wait_for_file.enqueue('go')")
    shop.worker("--drain-timeout", "0s")
    shop.until_started("go")
    tasks = shop.directory / "shop" / "tasks.py"
    tasks.write_text(tasks.read_text().replace("VERSION = 1", "VERSION = 2"))
    shop.until_started("go", 2)
    (shop.directory / "go").touch()
    described = enqueue(shop, "describe.enqueue()")
    until(lambda: result(shop, described)["status"] == "SUCCESSFUL", within=PATIENCE)
    assert result(shop, described)["value"]["version"] == 2
    assert result(shop, waiting)["value"] == 1


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


def test_the_tests_of_the_project_pass(open_shop: Opener, request: pytest.FixtureRequest, engine: str) -> None:
    """The admin and the helpers for tests, under Django's own test runner."""
    versions = [OLDEST, NEWEST] if request.config.option.all_engines or engine == "sqlite" else [NEWEST]
    for version in versions:
        shop = open_shop(version)
        done = shop.run("test", "--noinput")
        assert done.returncode == 0, done.stderr
        assert "OK" in done.stderr
        break


@pytest.mark.one_engine("settings decide, not the engine")
def test_checks_name_what_cannot_work(open_shop: Opener) -> None:
    shop = open_shop()
    assert "no issues" in shop.manage("check")

    def problems(**settings: object) -> str:
        return shop.run("check", **settings).stderr

    tasks = {"BACKEND": "dbtaskqueue.integrations.django.DatabaseBackend"}
    apps = ["django.contrib.contenttypes", "shop"]
    assert "dbtaskqueue.E001" in problems(INSTALLED_APPS=apps, ROOT_URLCONF="shop.models")
    assert "dbtaskqueue.E002" in problems(TASKS={"default": {**tasks, "OPTIONS": {"database": "warehouse"}}})
    assert "dbtaskqueue.E002" in problems(TASKS={"default": {**tasks, "OPTIONS": {"url": "oracle://tasks"}}})
    sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": "x.sqlite"}
    assert "dbtaskqueue.W001" in problems(DATABASES={"default": sqlite})
    assert "dbtaskqueue.W002" in problems(DATABASES={"default": {**sqlite, "NAME": ":memory:"}})
