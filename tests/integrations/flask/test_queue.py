"""FlaskTaskQueue in one process: applications and their databases, config, application contexts, transactions."""

from __future__ import annotations

import gc
import json
import logging
import signal
import weakref
from pathlib import Path
from typing import Any

import pytest
from helpers import Background
from servers import requirements

requirements.library("flask")

from flask import Flask, current_app, g  # noqa: E402

from dbtaskqueue import ConfigurationError, Extension, TaskQueueError, Worker  # noqa: E402
from dbtaskqueue.integrations.flask import FlaskTaskQueue  # noqa: E402

pytestmark = pytest.mark.one_engine("the core decides what is stored")


def an_app(name: str = "first", **config: Any) -> Flask:
    app = Flask(name)
    app.config.from_mapping(config)
    return app


def file(directory: Path, name: str) -> str:
    return f"sqlite:///{directory}/{name}.sqlite"


# -- applications ----------------------------------------------------------------------------------


def test_nothing_is_opened_until_it_is_used(tmp_path: Path) -> None:
    app = an_app(DBTASKQUEUE_URL=file(tmp_path, "tasks"))
    tasks = FlaskTaskQueue()

    @tasks.task
    def double(number: int) -> int:
        return 2 * number

    tasks.init_app(app)
    assert app.extensions["dbtaskqueue"] is tasks
    assert (tasks.is_open, list(tmp_path.iterdir())) == (False, [])
    with app.app_context():
        task = double.enqueue(21)
        Worker(tasks).run(burst=True)
        assert task.refresh().result == 42
    assert tasks.is_open
    tasks.close()


def test_an_application_has_one_queue(tmp_path: Path) -> None:
    app = an_app()
    tasks = FlaskTaskQueue(app)
    for again in (tasks, FlaskTaskQueue()):
        with pytest.raises(RuntimeError, match="already has a FlaskTaskQueue"):
            again.init_app(app)


def test_one_object_serves_several_applications(tmp_path: Path) -> None:
    tasks = FlaskTaskQueue()
    mails = tasks.lane("mails")

    @tasks.task
    def where() -> list[str]:
        mails.enqueue("from a task")
        return [current_app.name, tasks.name]

    apps = [
        an_app(name, DBTASKQUEUE_URL=file(tmp_path, name), DBTASKQUEUE_QUEUE=f"{name}s", DBTASKQUEUE_LEASE=lease)
        for name, lease in (("one", 10), ("two", 20))
    ]
    for app in apps:
        tasks.init_app(app)
    for app in apps:
        with app.app_context():
            assert where.enqueue().id == 1
    for app in apps:
        with app.app_context():
            assert (tasks.name, tasks.lease, tasks.url) == (f"{app.name}s", app.config["DBTASKQUEUE_LEASE"], tasks.url)
            worker = Worker(tasks)
            assert worker.queues == [f"{app.name}s"]
            worker.run(burst=True)
            assert tasks.get(1).result == [app.name, f"{app.name}s"]
            assert (mails.stats().pending, mails.name) == (1, "mails")
    for use in (lambda: where.enqueue(), lambda: tasks.stats(), lambda: Worker(tasks).run(burst=True)):
        with pytest.raises(TaskQueueError, match=r"inside app\.app_context\(\)|call init_app"):
            use()
    with an_app("third").app_context(), pytest.raises(TaskQueueError, match=r"inside app\.app_context\(\)"):
        tasks.enqueue(1)
    assert tasks.functions.names() == [f"{__name__}.{where.__wrapped__.__qualname__}"]  # type: ignore[attr-defined]


def test_the_first_request_opens_the_database_and_reports_no_failure(tmp_path: Path) -> None:
    app = an_app(DBTASKQUEUE_URL=file(tmp_path, "missing/tasks"))
    tasks = FlaskTaskQueue(app)
    app.get("/")(lambda: str(tasks.is_open))
    assert [app.test_client().get("/").text for _ in range(2)] == ["False", "False"]
    with pytest.raises(TaskQueueError):
        tasks.enqueue(1)
    well = an_app(DBTASKQUEUE_URL=file(tmp_path, "tasks"))
    tasks.init_app(well)
    well.get("/")(lambda: str(tasks.is_open))
    assert well.test_client().get("/").text == "True"


def test_without_an_application(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DBTASKQUEUE_URL", file(tmp_path, "unused"))
    tasks = FlaskTaskQueue(queue="mine")
    assert (tasks.name, tasks.is_open) == ("mine", False)
    with pytest.raises(TaskQueueError, match=r"call init_app\(app\)"):
        tasks.enqueue(1)
    assert list(tmp_path.iterdir()) == []


def test_outside_of_a_context_the_only_application_is_meant(tmp_path: Path) -> None:
    app = an_app(DBTASKQUEUE_URL=file(tmp_path, "tasks"))
    tasks = FlaskTaskQueue(app)
    assert tasks.enqueue(1).id == 1
    assert Background(lambda: tasks.stats().pending).join() == 1


def test_an_application_can_be_collected(tmp_path: Path) -> None:
    tasks = FlaskTaskQueue()
    app = an_app(DBTASKQUEUE_URL=file(tmp_path, "tasks"))
    tasks.init_app(app)
    with app.app_context():
        tasks.enqueue(1)
    known = weakref.ref(app)
    tasks.close()
    del app
    gc.collect()
    assert known() is None


# -- config ----------------------------------------------------------------------------------------


def test_the_url_comes_from_the_config_then_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, url, variable = (file(tmp_path, name) for name in ("uri", "url", "variable"))
    monkeypatch.setenv("DBTASKQUEUE_URL", variable)
    for config, expected in (
        ({"SQLALCHEMY_DATABASE_URI": uri, "DBTASKQUEUE_URL": url}, url),
        ({"SQLALCHEMY_DATABASE_URI": uri}, uri),
        ({}, variable),
    ):
        app = an_app(**config)
        assert FlaskTaskQueue(app).url == expected
    monkeypatch.delenv("DBTASKQUEUE_URL")
    with pytest.raises(ConfigurationError, match="must have DBTASKQUEUE_URL"):
        FlaskTaskQueue(app := an_app()).enqueue(1)
    late = an_app()
    tasks = FlaskTaskQueue(late)
    late.config["DBTASKQUEUE_URL"] = url  # as a test does after it has called a factory
    assert tasks.url == url


def test_the_database_of_flask_sqlalchemy(tmp_path: Path) -> None:
    requirements.library("sqlalchemy")
    from sqlalchemy import URL

    def url_of(uri: object) -> str:
        app = Flask("shop", instance_path=str(tmp_path / "instance"))
        app.config["SQLALCHEMY_DATABASE_URI"] = uri
        return FlaskTaskQueue(app).url

    assert url_of("sqlite:///a b%20c.sqlite") == f"sqlite:///{tmp_path}/instance/a%20b%2520c.sqlite"
    assert (tmp_path / "instance").is_dir()
    assert url_of("sqlite+pysqlite:////srv/shop.sqlite?timeout=5") == "sqlite:////srv/shop.sqlite"
    server = URL.create("postgresql+psycopg", "ann", "p@ss", "db.example", 5433, "shop")
    assert url_of(server) == "postgresql://ann:p%40ss@db.example:5433/shop"
    assert url_of({"url": server, "echo": True}) == "postgresql://ann:p%40ss@db.example:5433/shop"
    assert url_of("mysql+mysqldb://ann@db/shop?charset=utf8mb4") == "mysql://ann@db/shop"
    for uri in ("sqlite://", "sqlite:///:memory:", "sqlite:///file:shop?mode=memory&uri=true"):
        with pytest.raises(ConfigurationError, match="set DBTASKQUEUE_URL"):
            url_of(uri)


def test_a_schedule_is_in_the_queue_of_each_application(tmp_path: Path) -> None:
    tasks = FlaskTaskQueue()

    @tasks.periodic(every=3600)
    def hourly() -> None: ...

    @tasks.lane("mails").periodic(every=3600, name="mails")
    def other() -> None: ...

    for name in ("one", "two"):
        app = an_app(name, DBTASKQUEUE_URL=file(tmp_path, name), DBTASKQUEUE_QUEUE=name)
        tasks.init_app(app)
        with app.app_context():
            Worker(tasks, queues=["*"]).run(burst=True)
            assert [each.queue for each in tasks.schedules()] == [name]
            assert [each.queue for each in tasks.lane("mails").schedules()] == ["mails"]


# -- tasks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["thread", "asyncio"])
def test_each_attempt_has_an_application_context_of_its_own(url: str, executor: Any) -> None:
    app = an_app(DBTASKQUEUE_URL=url)
    torn_down: list[BaseException | None] = []
    app.teardown_appcontext(torn_down.append)
    tasks = FlaskTaskQueue(app)

    @tasks.task
    def plain(number: int) -> list[Any]:
        assert "number" not in g
        g.number = number
        if number == 3:
            raise ValueError(number)
        return [current_app.name, number]

    @tasks.task
    async def later(number: int) -> list[Any]:
        return plain(number)

    found = [function.using(max_attempts=1).enqueue(number) for number in (1, 2, 3) for function in (plain, later)]
    Worker(tasks, executor=executor, concurrency=3).run(burst=True)
    results = [task.refresh().result for task in found]
    assert results == [["first", 1], ["first", 1], ["first", 2], ["first", 2], None, None]
    assert sorted(map(repr, torn_down)) == ["None"] * 4 + ["ValueError(3)"] * 2


class Log(Extension):
    """Notes what it sees, and in which application."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def enqueuing(self, new: Any) -> None:
        self.seen.append(("enqueuing", new.queue))

    def attempt(self, task: Any) -> Any:
        self.seen.append(("attempt", current_app.name))
        return super().attempt(task)


def test_other_extensions_run_inside_of_the_context(url: str) -> None:
    given, added, late = Log(), Log(), Log()
    tasks = FlaskTaskQueue(extensions=[given])
    tasks.use(added)
    app = an_app(DBTASKQUEUE_URL=url, DBTASKQUEUE_QUEUE="shop")
    tasks.init_app(app)
    tasks.enqueue(1)
    tasks.use(late)
    Worker(tasks).run(lambda payload: payload, burst=True)
    assert given.seen == added.seen == [("enqueuing", "shop"), ("attempt", "first")]
    assert late.seen == [("attempt", "first")]
    with pytest.raises(TypeError, match="must be an Extension"):
        tasks.use(object())  # type: ignore[arg-type]


# -- in the transaction of Flask-SQLAlchemy --------------------------------------------------------


@pytest.mark.every_engine("the transaction is one of the database")
def test_a_view_that_is_rolled_back_has_enqueued_nothing(shop: Any, config: dict[str, Any]) -> None:
    app = shop.create_app(**config)
    client = app.test_client()
    assert client.post("/orders").json["order"] == 1
    assert client.post("/orders?refuse=1").status_code == 409
    with app.app_context():
        assert shop.tasks.stats().pending == 1
        Worker(shop.tasks, queues=["shop", "mails"]).run(burst=True)
        [task] = shop.tasks.tasks()
        assert task.result[0] == "shop"
        assert [mail.result for mail in shop.queues.mails.tasks()] == ["receipt of 1 from shop"]
        assert [order.state for order in shop.models.db.session.query(shop.models.Order)] == ["charged"]
        shop.models.db.session.remove()
        shop.models.db.engine.dispose()


def test_a_test_of_the_application_creates_its_own(shop: Any, tmp_path: Path) -> None:
    """As fixtures do: a new application and a new database for each test, with one FlaskTaskQueue."""
    for name in ("one", "two"):
        url = file(tmp_path, name)
        app = shop.create_app(SQLALCHEMY_DATABASE_URI=url, TESTING=True)
        assert app.test_client().post("/orders").json["task"] == 1
        with app.app_context():
            assert shop.tasks.url == url
            Worker(shop.tasks).run(burst=True)
            assert shop.tasks.stats().done == 1
            run = app.test_cli_runner().invoke(args=["tasks", "list", "--json"])
            assert [task["state"] for task in json.loads(run.output)] == ["done"]
        run = app.test_cli_runner().invoke(args=["tasks", "stats", "--json"])  # without a context
        assert json.loads(run.output)["done"] == 1


def test_a_worker_of_the_test_runner_leaves_signals_and_logging_alone(tmp_path: Path) -> None:
    """A handler that stays would ignore Ctrl-C in the rest of the test run."""
    app = an_app(DBTASKQUEUE_URL=file(tmp_path, "tasks"))
    tasks = FlaskTaskQueue(app)
    tasks.task(name="double")(lambda number: number * 2)
    task = tasks.functions.find("double").enqueue(4)  # type: ignore[union-attr, attr-defined]
    numbers = signal.SIGTERM, signal.SIGINT
    before = [signal.getsignal(number) for number in numbers], logging.getLogger("dbtaskqueue").level
    words = ["tasks", "worker", "--burst", "--executor", "thread", "--log-level", "error"]
    assert app.test_cli_runner().invoke(args=words).exit_code == 0
    assert task.refresh().result == 8
    assert ([signal.getsignal(number) for number in numbers], logging.getLogger("dbtaskqueue").level) == before
