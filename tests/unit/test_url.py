"""Database URLs and DBI DSNs. No password is ever shown."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from dbtaskqueue import ConfigurationError, TaskQueue, TaskQueueError
from dbtaskqueue._formats.payload import MAX_BYTES
from dbtaskqueue._formats.url import mask, parse, same_database
from dbtaskqueue._store import open_store


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.sqlite", "relative.sqlite"),
        ("sqlite:////absolute/file.sqlite", "/absolute/file.sqlite"),
        ("SQLite:///x", "x"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite:///with%20space", "with space"),
        ("sqlite:///a#b", "a#b"),
        ("sqlite:///a%3Fb?synchronous=FULL", "a?b"),
        ("sqlite:///ünï.sqlite", "ünï.sqlite"),
        ("dbi:SQLite:dbname=FILE", "FILE"),
        ("dbi:SQLite:FILE", "FILE"),
        ("DBI:sqlite:database=/a/b.sqlite", "/a/b.sqlite"),
        ("Dbi:SQLITE:db=x", "x"),
        ("dbi:SQLite:dbname=:memory:", ":memory:"),
        ("dbi:SQLite:dbname=x;synchronous=NORMAL", "x"),
        ("dbi:SQLite:DBNAME=x", "x"),
    ],
)
def test_the_file(url: str, path: str) -> None:
    target = parse(url)
    assert (target.engine, target.database) == ("sqlite", path)


SQLALCHEMY = {
    "sqlite": ["sqlite+pysqlite:///x", "sqlite+aiosqlite:///x"],
    "postgresql": [
        f"postgresql+{driver}://u:secret@host/x" for driver in ("psycopg", "psycopg_async", "psycopg2", "asyncpg")
    ],
    "mariadb": [
        f"{scheme}+{driver}://u:secret@host/x"
        for scheme in ("mysql", "mariadb")
        for driver in ("pymysql", "mysqldb", "aiomysql", "asyncmy")
    ],
}


@pytest.mark.parametrize(("engine", "url"), [(engine, url) for engine, urls in SQLALCHEMY.items() for url in urls])
def test_a_url_with_the_name_of_a_driver_of_sqlalchemy_means_the_engine(engine: str, url: str) -> None:
    target = parse(url)
    assert (target.engine, target.database) == (engine, "x")
    assert "secret" not in target.text
    assert same_database(url, url.replace(url[url.index("+") : url.index(":")], ""))


def test_options() -> None:
    target = parse("sqlite:///x?synchronous=normal&max_payload=1234")
    assert (target.options, target.max_payload) == ({"synchronous": "normal"}, 1234)
    target = parse("dbi:SQLite:dbname=x;synchronous=EXTRA;max_payload=5")
    assert (target.options, target.max_payload) == ({"synchronous": "EXTRA"}, 5)
    target = parse("sqlite:///x")
    assert (target.options, target.max_payload) == ({}, MAX_BYTES)


BROKEN = [
    "",
    "file.sqlite",
    "/absolute/file.sqlite",
    "sqlite:",
    "sqlite://",
    "sqlite:///",
    "sqlite://host/file",
    "sqlite:/x",
    "sqlite:///?synchronous=FULL",
    "sqlite:///x?max_payload=0",
    "sqlite:///x?max_payload=-1",
    "sqlite:///x?max_payload=many",
    "sqlite:///x?max_payload=1e3",
    "sqlite:///x?max_payload=٣",
    "sqlite:///x?max_payload=99999999999999999999",
    "sqlite:///x%00y",
    "sqlite:///x\x00y",
    "redis://localhost",
    "http://[::1",
    "dbi:",
    "dbi:SQLite",
    "dbi:SQLite:",
    "dbi:SQLite:dbname=",
    "dbi:SQLite:dbname=a;database=b",
    "dbi:Oracle:dbname=x",
    "dbi::x",
    "postgresql://",
    "postgresql://host",
    "postgresql://host/",
    "postgresql:host/db",
    "postgresql+pymysql://host/db",
    "mysql+asyncpg://host/db",
    "sqlite+psycopg:///x",
    "postgresql+://host/db",
    "postgresql://host:port/db",
    "postgresql://host:0/db",
    "postgresql://host:65536/db",
    "postgresql://a,,b/db",
    "postgresql://host/db/more",
    "postgresql://host/a%00b",
    "mariadb://user:pass@word@localhost:1/db",
    "dbi:Pg:host=h",
    "dbi:Pg:dbname=x;port=none",
]


@pytest.mark.parametrize("url", BROKEN, ids=ascii)
def test_an_unknown_or_invalid_url(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(url)
    assert "\n" not in str(caught.value)


OPTIONS = [
    "sqlite:///x?synchronous=OFF",
    "sqlite:///x?synchronous=",
    "sqlite:///x?colour=red",
    "dbi:SQLite:dbname=a;colour=red",
]


@pytest.mark.parametrize("url", OPTIONS)
def test_an_option_that_the_engine_does_not_know(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"synchronous|colour"):
        open_store(url)


@pytest.mark.parametrize("url", [None, 7, b"sqlite:///x"])
def test_a_url_that_is_not_a_string(url: str) -> None:
    with pytest.raises(ConfigurationError):
        parse(url)


SERVERS = {
    "postgresql://localhost/db": ("postgresql", "db", (("localhost", None),), None, None),
    "postgres://localhost/db": ("postgresql", "db", (("localhost", None),), None, None),
    "postgresql+psycopg://u@h:5433/db": ("postgresql", "db", (("h", 5433),), "u", None),
    "PostgreSQL://u:p%40%2F%3A@[::1]:5433/d%20b": ("postgresql", "d b", (("::1", 5433),), "u", "p@/:"),
    "postgresql://a:1,b:2/db": ("postgresql", "db", (("a", 1), ("b", 2)), None, None),
    "postgresql:///db?host=/run": ("postgresql", "db", (), None, None),
    "mariadb://u:@h/db": ("mariadb", "db", (("h", None),), "u", ""),
    "mysql://h/db": ("mariadb", "db", (("h", None),), None, None),
    "mysql+pymysql://h/db": ("mariadb", "db", (("h", None),), None, None),
    "mariadb+pymysql://h/db": ("mariadb", "db", (("h", None),), None, None),
    "dbi:Pg:dbname=x": ("postgresql", "x", (), None, None),
    "DBI:PG:database=x;host=h;port=7;user=u;password=a@b": ("postgresql", "x", (("h", 7),), "u", "a@b"),
    "dbi:Pg:dbname=x;port=7": ("postgresql", "x", (("localhost", 7),), None, None),
    "dbi:MariaDB:database=x;host=h": ("mariadb", "x", (("h", None),), None, None),
    "dbi:mysql:x": ("mariadb", "x", (), None, None),
}


@pytest.mark.parametrize("url", SERVERS)
def test_a_server(url: str) -> None:
    target = parse(url)
    assert (target.engine, target.database, target.hosts, target.user, target.password) == SERVERS[url]


SECRET = "s3cr:t@/?#ä"
SIMPLE = "hunter2"
WITH_PASSWORDS = [
    f"postgresql://user:{SIMPLE}@localhost:1/db",
    f"mysql://user:{SIMPLE}@localhost:1/db",
    f"nonsense://user:{SIMPLE}@localhost:1/db",
    f"sqlite://user:{SIMPLE}@localhost:1/db",
    f"http://user:{SIMPLE}@[::1/db",
    f"postgresql://user:a@{SIMPLE}@localhost:1/db",
    f"postgresql://user:a:{SIMPLE}@localhost:1/db",
    f"postgresql://localhost:1/db?user=u&password={SIMPLE}",
    f"sqlite:///x?password={SIMPLE}",
    f"sqlite:///x?synchronous=OFF&passwd={SIMPLE}",
    f"dbi:Pg:dbname=x;host=localhost;port=1;user=u;password={SIMPLE}",
    f"dbi:Oracle:dbname=x;PASSWORD={SIMPLE}",
    f"dbi:SQLite:dbname=x;pwd={SIMPLE}",
    f"dbi:mysql:database=x;host=localhost;port=1;mysql_password={SIMPLE}",
    f"dbi:Pg:dbname=x;port=1;password = {SIMPLE}",
    f"dbi:Pg:dbname=x;port=1;password='{SIMPLE} {SIMPLE}'",
    f"postgresql://user:{SIMPLE}/{SIMPLE}@localhost:1/db",
    f"postgresql://user:{SIMPLE}?{SIMPLE}@localhost:1/db",
    f"postgresql://user:{SIMPLE}#{SIMPLE}@localhost:1/db",
    f"postgresql:user:{SIMPLE}@localhost:1/db",
]


@pytest.mark.parametrize("url", WITH_PASSWORDS)
def test_no_error_shows_a_password(url: str) -> None:
    assert SIMPLE not in mask(url)
    with contextlib.suppress(ConfigurationError):
        assert SIMPLE not in parse(url).text
    error = raised_by(url)
    while error is not None:
        assert SIMPLE not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def raised_by(url: str) -> BaseException | None:
    """Return the error of opening a queue: the URL is invalid, or no server answers."""
    with pytest.raises(TaskQueueError) as caught:
        TaskQueue(url)
    return caught.value


@pytest.mark.parametrize("url", ["sqlite:///x", "postgresql://user@host/db", "dbi:Pg:dbname=x", "a@b:c"])
def test_a_url_without_a_password_is_shown_unchanged(url: str) -> None:
    assert mask(url) == url


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sqlite:///x.sqlite", "dbi:SQLite:dbname=./x.sqlite", True),
        ("sqlite:///x.sqlite", "sqlite:///y/../x.sqlite?synchronous=NORMAL", True),
        ("sqlite:///x.sqlite", "sqlite:////x.sqlite", False),
        ("sqlite:///x", "mariadb://localhost/x", False),
        ("mariadb://me:secret@localhost/x", "dbi:mysql:database=x;user=you", True),
        ("mariadb://localhost/x", "mariadb://localhost:3307/x", False),
        ("postgresql://a:5432,b/x", "postgres://a,b:5432/x", True),
        ("postgresql://a,b/x", "postgresql://b,a/x", False),
        ("postgresql://a/x", "postgresql://a/y", False),
        ("postgresql://a/x", "postgresql://a/x?schema=other", False),
    ],
)
def test_two_urls_of_the_same_database(one: str, other: str, same: bool) -> None:
    assert same_database(one, other) is same


def test_a_symbolic_link_means_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "file.sqlite")
    assert same_database(f"sqlite:///{tmp_path}/link.sqlite", f"sqlite:///{tmp_path}/file.sqlite")
