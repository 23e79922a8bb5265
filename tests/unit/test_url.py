"""Database URLs and DBI DSNs; and that no password is ever shown."""

from __future__ import annotations

import pytest

from dbtaskqueue import ConfigurationError, TaskQueue
from dbtaskqueue.payload import MAX_BYTES
from dbtaskqueue.url import mask, parse


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.sqlite", "relative.sqlite"),
        ("sqlite:////absolute/file.sqlite", "/absolute/file.sqlite"),
        ("SQLite:///x", "x"),
        ("sqlite:///:memory:", ""),
        ("sqlite:///with%20space", "with space"),
        ("sqlite:///a#b", "a#b"),
        ("sqlite:///a%3Fb?synchronous=FULL", "a?b"),
        ("sqlite:///ünï.sqlite", "ünï.sqlite"),
        ("dbi:SQLite:dbname=FILE", "FILE"),
        ("dbi:SQLite:FILE", "FILE"),
        ("DBI:sqlite:database=/a/b.sqlite", "/a/b.sqlite"),
        ("Dbi:SQLITE:db=x", "x"),
        ("dbi:SQLite:dbname=:memory:", ""),
        ("dbi:SQLite:dbname=x;synchronous=NORMAL", "x"),
        ("dbi:SQLite:DBNAME=x", "x"),
    ],
)
def test_the_file(url: str, path: str) -> None:
    target = parse(url)
    assert (target.engine, target.path) == ("sqlite", path)


def test_options() -> None:
    target = parse("sqlite:///x?synchronous=normal&max_payload=1234")
    assert (target.synchronous, target.max_payload) == ("NORMAL", 1234)
    target = parse("dbi:SQLite:dbname=x;synchronous=EXTRA;max_payload=5")
    assert (target.synchronous, target.max_payload) == ("EXTRA", 5)
    target = parse("sqlite:///x")
    assert (target.synchronous, target.max_payload) == ("FULL", MAX_BYTES)


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
    "sqlite:///x?synchronous=OFF",
    "sqlite:///x?synchronous=",
    "sqlite:///x?colour=red",
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
    "dbi:SQLite:dbname=a;colour=red",
    "dbi:Oracle:dbname=x",
    "dbi::x",
]


@pytest.mark.parametrize("url", BROKEN, ids=ascii)
def test_what_is_unknown_or_broken(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", [None, 7, b"sqlite:///x"])
def test_what_is_no_text(url: str) -> None:
    with pytest.raises(ConfigurationError):
        parse(url)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://localhost/db", "PostgreSQL"),
        ("postgres://localhost/db", "PostgreSQL"),
        ("postgresql+psycopg://localhost/db", "PostgreSQL"),
        ("mariadb://localhost/db", "MariaDB"),
        ("mysql://localhost/db", "MariaDB"),
        ("dbi:Pg:dbname=x", "PostgreSQL"),
        ("dbi:PG:dbname=x", "PostgreSQL"),
        ("dbi:MariaDB:database=x", "MariaDB"),
        ("dbi:mysql:database=x", "MariaDB"),
    ],
)
def test_a_server_is_named_until_it_is_spoken(url: str, name: str) -> None:
    with pytest.raises(ConfigurationError, match=name):
        parse(url)


SECRET = "s3cr:t@/?#ä"
SIMPLE = "hunter2"
WITH_PASSWORDS = [
    f"postgresql://user:{SIMPLE}@host:5432/db",
    f"mysql://user:{SIMPLE}@host/db",
    f"nonsense://user:{SIMPLE}@host/db",
    f"sqlite://user:{SIMPLE}@host/db",
    f"http://user:{SIMPLE}@[::1/db",
    f"postgresql://user:a@{SIMPLE}@host/db",
    f"postgresql://user:a:{SIMPLE}@host/db",
    f"postgresql://host/db?user=u&password={SIMPLE}",
    f"sqlite:///x?password={SIMPLE}",
    f"sqlite:///x?synchronous=OFF&passwd={SIMPLE}",
    f"dbi:Pg:dbname=x;host=h;user=u;password={SIMPLE}",
    f"dbi:Oracle:dbname=x;PASSWORD={SIMPLE}",
    f"dbi:SQLite:dbname=x;pwd={SIMPLE}",
    f"dbi:mysql:database=x;mysql_password={SIMPLE}",
    f"dbi:Pg:dbname=x;password = {SIMPLE}",
    f"dbi:Pg:dbname=x;password='{SIMPLE} {SIMPLE}'",
    f"postgresql://user:{SIMPLE}/{SIMPLE}@host/db",
    f"postgresql://user:{SIMPLE}?{SIMPLE}@host/db",
    f"postgresql://user:{SIMPLE}#{SIMPLE}@host/db",
    f"postgresql:user:{SIMPLE}@host/db",
]


@pytest.mark.parametrize("url", WITH_PASSWORDS)
def test_no_error_shows_a_password(url: str) -> None:
    assert SIMPLE not in mask(url)
    for act in (parse, TaskQueue):
        with pytest.raises(ConfigurationError) as caught:
            act(url)
        error: BaseException | None = caught.value
        while error is not None:
            assert SIMPLE not in str(error)
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("url", ["sqlite:///x", "postgresql://user@host/db", "dbi:Pg:dbname=x", "a@b:c"])
def test_what_has_no_password_is_shown_as_it_is(url: str) -> None:
    assert mask(url) == url
