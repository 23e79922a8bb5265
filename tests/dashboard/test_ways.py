"""The ways into ``dbtaskqueue dashboard``. Numbers are those of the threats."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from dashboard.clients import HOST, TOKEN, InProcess, client_of, form_headers, with_doors

from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard import Dashboard
from dbtaskqueue.dashboard.passwords import hashed, is_hash, is_password
from dbtaskqueue.dashboard.people import People
from dbtaskqueue.dashboard.sessions import SECONDS, Sessions
from dbtaskqueue.dashboard.throttle import MOST, WITHIN, Throttle
from dbtaskqueue.dashboard.ways import Doors, ProxyHeader
from dbtaskqueue.errors import ConfigurationError

pytestmark = pytest.mark.one_engine("what is tested comes before the database")

PASSWORD = "correct horse"
HASH = hashed(PASSWORD)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def token_line(role: str, name: str, token: str) -> str:
    return f"{role} {name} {hashlib.sha256(token.encode()).hexdigest()}\n"


# -- the token of the ready line -------------------------------------------------------------------


def test_the_token_as_a_bearer(queue: TaskQueue) -> None:
    client = with_doors(queue, signed_in=False)
    assert client.get("/api/v1/me", headers=bearer(TOKEN)).json()["role"] == "admin"
    assert client.get("/api/v1/me").status_code == 401


def test_11_the_token_of_a_link_becomes_a_cookie(queue: TaskQueue) -> None:
    client = with_doors(queue, signed_in=False)
    answer = client.get(f"/tasks?state=failed&token={TOKEN}&queue=a%26b")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/tasks?state=failed&queue=a%26b"
    cookie = answer.headers["set-cookie"]
    assert TOKEN not in cookie
    assert re.search("HttpOnly.*Path=/;.*SameSite=lax", cookie)
    assert "Secure" not in cookie
    assert client.get("/api/v1/me").json() | {"csrf": ""} == {"name": "start", "role": "admin", "csrf": ""}
    assert client.post("/tasks/9/cancel", data={"x": 1}, headers=form_headers(client)).status_code not in (401, 403)
    # once more, as from the history of the browser
    assert client.get(f"/?token={TOKEN}").headers["location"] == "/"
    assert client.get("/?token=old").headers["location"] == "/"
    assert client.get("/api/v1/me").status_code == 200


def test_a_cookie_over_tls_is_secure(queue: TaskQueue) -> None:
    with httpx.Client(transport=InProcess(Dashboard(queue, auth=Doors(TOKEN))), base_url="https://127.0.0.1") as client:
        assert "Secure" in client.get(f"/?token={TOKEN}").headers["set-cookie"]


@pytest.mark.parametrize("token", ["x", "", TOKEN[:-1], TOKEN + "x", "ü", "\0", "x" * 1000])
def test_wrong_tokens(queue: TaskQueue, token: str) -> None:
    client = with_doors(queue, signed_in=False)
    assert client.get("/", params={"token": token}).status_code == 401
    if token.isascii() and token.isprintable():
        assert client.get("/", headers=bearer(token)).status_code == 401
    assert client.get("/", headers={"cookie": f"dbtaskqueue_session={TOKEN}"}).status_code == 401


def test_12_many_wrong_tokens(queue: TaskQueue) -> None:
    clock = Clock()
    client = with_doors(queue, signed_in=False, doors=Doors(TOKEN, throttle=Throttle(clock)))
    for _ in range(MOST):
        assert client.get("/api/v1/me", headers=bearer("x")).status_code == 401
    answer = client.get("/api/v1/me", headers=bearer("x"))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    assert client.get("/?token=x").status_code == 429
    assert client.get("/api/v1/me", headers=bearer(TOKEN)).status_code == 200  # nobody can lock out who knows it
    assert client.get("/api/v1/me").status_code == 401
    clock.now += WITHIN
    assert client.get("/api/v1/me", headers=bearer("x")).status_code == 401


def test_12_addresses_are_counted_one_by_one() -> None:
    throttle = Throttle(Clock())
    for _ in range(MOST):
        throttle.note("10.0.0.1")
        throttle.note("2001:db8::1")
    assert throttle.is_full("10.0.0.1")
    assert not throttle.is_full("10.0.0.2")
    assert throttle.is_full("2001:db8::ffff:1")  # who has one address of a network has all of them
    assert not throttle.is_full("2001:db8:0:1::1")
    for number in range(20_000):
        throttle.note(f"10.1.{number // 256}.{number % 256}")
    assert len(throttle._failures) == 10_000


# -- a file of tokens ------------------------------------------------------------------------------


def test_tokens_of_a_file(queue: TaskQueue, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(
        "# for monitoring\n\n" + token_line("look", "prometheus", "one") + token_line("operate", "bot", "two")
    )
    client = with_doors(queue, signed_in=False, doors=Doors(TOKEN, tokens=People(str(file), "tokens")))
    found = {token: client.get("/api/v1/me", headers=bearer(token)) for token in ("one", "two", "three")}
    assert found["one"].json()["role"] == "look"
    assert found["two"].json()["name"] == "bot"
    assert found["three"].status_code == 401
    assert client.post("/api/v1/tasks/9/cancel", headers=bearer("one")).status_code == 403

    assert client.get("/?token=one").status_code == 303
    assert client.get("/api/v1/me").json()["name"] == "prometheus"


def test_24_a_file_is_read_again_when_it_changes(
    queue: TaskQueue, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "tokens"
    file.write_text(token_line("look", "bot", "one"))
    client = with_doors(queue, signed_in=False, doors=Doors(TOKEN, tokens=People(str(file), "tokens")))
    client.get("/?token=one")
    file.write_text(token_line("operate", "bot", "one"))
    assert client.get("/api/v1/me").json()["role"] == "operate"
    file.write_text(token_line("operate", "bot", "a new one"))
    assert client.get("/api/v1/me").status_code == 401
    assert client.get("/api/v1/me", headers=bearer("a new one")).status_code == 200
    file.write_text("nonsense\n" + token_line("look", "other", "three"))
    with caplog.at_level(logging.ERROR):
        assert client.get("/api/v1/me", headers=bearer("three")).status_code == 200
    assert "line 1: must be ROLE NAME SECRET" in caplog.text
    file.unlink()
    assert client.get("/api/v1/me", headers=bearer("three")).status_code == 401


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("look bot", "line 1: must be ROLE NAME SECRET"),
        ("root bot " + "0" * 64, "'root' is not a role"),
        ("look bot " + "0" * 63, "the secret of bot is not a hash"),
        ("look bot " + "g" * 64, "the secret of bot is not a hash"),
        (f"look a {'0' * 64}\n\nlook a {'1' * 64}", "line 3: a has two lines"),
        ("\udcff", "cannot read"),
    ],
)
def test_a_wrong_file_is_an_error_at_the_start(tmp_path: Path, text: str, error: str) -> None:
    file = tmp_path / "tokens"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=re.escape(error)):
        People(str(file), "tokens")


# -- passwords -------------------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users"
    file.write_text(f"operate alice {HASH}\nlook bob {hashed('other')}\n")
    return file


def with_users(queue: TaskQueue, users: Path, **options: Any) -> httpx.Client:
    return with_doors(queue, signed_in=False, doors=Doors(TOKEN, users=People(str(users), "users"), **options))


def sign_in(client: httpx.Client, name: str, password: str, **fields: str) -> httpx.Response:
    return client.post("/login", data={"name": name, "password": password, **fields}, headers={"origin": HOST})


def test_signing_in_and_out(queue: TaskQueue, users: Path) -> None:
    client = with_users(queue, users)
    for page in (client.get("/tasks?state=failed"), client.get("/login?next=/tasks%3Fstate=failed")):
        assert re.findall('name="(name|password|next)"', page.text) == ["next", "name", "password"]
        assert 'value="/tasks?state=failed"' in page.text
    answer = sign_in(client, "alice", PASSWORD, next="/tasks?state=failed")
    assert (answer.status_code, answer.headers["location"]) == (303, "/tasks?state=failed")
    assert PASSWORD not in str(answer.headers)
    assert client.get("/api/v1/me").json()["role"] == "operate"
    assert client.post("/logout", data={}, headers={"origin": HOST}).status_code == 403
    assert client.post("/logout", data={}, headers=form_headers(client)).headers["location"] == "/login"
    assert client.get("/api/v1/me").status_code == 401


def test_24_a_session_follows_the_file_of_users(queue: TaskQueue, users: Path) -> None:
    client = with_users(queue, users)
    sign_in(client, "alice", PASSWORD)
    users.write_text(f"admin alice {HASH}\n")
    assert client.get("/api/v1/me").json()["role"] == "admin"
    users.write_text(f"admin alice {hashed('a new password')}\n")
    assert client.get("/api/v1/me").status_code == 401


def test_24_a_session_ends_after_12_hours(queue: TaskQueue, users: Path) -> None:
    clock = Clock()
    client = with_users(queue, users, sessions=Sessions(clock))
    assert f"Max-Age={SECONDS};" in sign_in(client, "alice", PASSWORD).headers["set-cookie"]
    clock.now += SECONDS - 1
    assert client.get("/api/v1/me").status_code == 200
    clock.now += 1
    assert client.get("/api/v1/me").status_code == 401


def test_a_session_cannot_be_forged(queue: TaskQueue, users: Path) -> None:
    client = with_users(queue, users)
    sign_in(client, "bob", "other")
    [value] = client.cookies.values()
    data, _, signature = value.partition(".")
    others = [signature, data, f"{data}.", f".{signature}", f"{data[:-2]}xx.{signature}", f"{data}.{signature[:-2]}xx"]
    others += ["", ".", "%", "x.y", f"{value}x", Sessions().sign(Sessions().read(value) or ("user", "bob", "x"))]  # type: ignore[arg-type]
    client.cookies.clear()
    for other in others:
        assert client.get("/api/v1/me", headers={"cookie": f"dbtaskqueue_session={other}"}).status_code == 401, other


def test_wrong_passwords(queue: TaskQueue, users: Path) -> None:
    client = with_users(queue, users)
    texts = set()
    for name, password in (("alice", "x"), ("nobody", PASSWORD), ("bob", PASSWORD), ("alice", "x" * 5000)):
        answer = sign_in(client, name, password)
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        texts.add(re.search('role="alert">(.*?)<', answer.text)[1])  # type: ignore[index]
    assert len(texts) == 1, "nobody learns which names exist"
    assert sign_in(client, "", "").status_code == 422
    assert client.post("/login", data={"name": ["a", "b"], "password": "x"}).status_code == 422


def test_12_many_wrong_passwords(queue: TaskQueue, users: Path) -> None:
    clock = Clock()
    client = with_users(queue, users, throttle=Throttle(clock))
    for _ in range(MOST):
        assert sign_in(client, "alice", "x").status_code == 401
    answer = sign_in(client, "alice", PASSWORD)
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "60"
    clock.now += WITHIN
    assert sign_in(client, "alice", PASSWORD).status_code == 303


@pytest.mark.parametrize(
    "next",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "/\r\nx: y",
        "javascript:alert(1)",
        "",
        "evil",
        "/%0a",
    ],
)
def test_22_the_way_back_is_one_of_our_pages(queue: TaskQueue, users: Path, next: str) -> None:
    assert sign_in(with_users(queue, users), "alice", PASSWORD, next=next).headers["location"] == "/"


def test_3_signing_in_from_another_site(queue: TaskQueue, users: Path) -> None:
    client = with_users(queue, users)
    fields = {"name": "alice", "password": PASSWORD}
    for headers in ({"origin": "https://evil.example"}, {"origin": HOST, "sec-fetch-site": "cross-site"}):
        assert client.post("/login", data=fields, headers=headers).status_code == 403
    assert client.post("/login", data=fields).status_code == 303  # not a browser


def test_without_users_there_is_nothing_to_sign_in_to(queue: TaskQueue) -> None:
    client = with_doors(queue, signed_in=False)
    assert sign_in(client, "alice", PASSWORD).status_code == 404
    assert "password" not in client.get("/login").text


def test_hashes() -> None:
    assert is_password(PASSWORD, HASH)
    assert not is_password("x", HASH)
    assert not is_password(PASSWORD, None)
    assert hashed(PASSWORD) != HASH
    _, numbers, salt, digest = HASH.split("$")
    for wrong in (
        "",
        PASSWORD,
        f"scrypt$1,8,1${salt}${digest}",
        f"scrypt$30,8,1${salt}${digest}",  # would take 32 GiB
        f"scrypt${numbers}$x${digest}",
        f"scrypt${numbers}${salt}$AA==",
        f"md5${numbers}${salt}${digest}",
    ):
        assert not is_hash(wrong)
        assert not is_password(PASSWORD, wrong)


# -- the header of a proxy -------------------------------------------------------------------------


def with_header(queue: TaskQueue, address: str | None, users: People | None = None, **options: Any) -> httpx.Client:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]
    doors = Doors(TOKEN, users=users, header=ProxyHeader("Remote-User", networks, **options))
    return httpx.Client(transport=InProcess(Dashboard(queue, auth=doors), address), base_url=HOST)


def who(client: httpx.Client, *names: str) -> Any:
    answer = client.get("/api/v1/me", headers=[("remote-user", name) for name in names])
    return (answer.json()["name"], answer.json()["role"]) if answer.status_code == 200 else answer.status_code


def test_13_the_header_counts_only_from_the_proxy(queue: TaskQueue, users: Path) -> None:
    people = People(str(users), "users")
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "fd00::1%eth0"):
        client = with_header(queue, address, people)
        assert who(client, "alice") == ("alice", "operate")
        assert who(client, "carol") == ("carol", "look")
        assert who(client) == 401
    for address in ("127.0.0.1", "11.0.0.1", "::1", "fe80::1", "testclient", None):
        assert who(with_header(queue, address, people), "alice") == 403
    assert who(with_header(queue, None, people, trusts_socket=True), "alice") == ("alice", "operate")


@pytest.mark.parametrize("names", [("alice", "bob"), ("",), ("x" * 201,), ("a\x01b",)])
def test_13_a_header_that_is_not_one_name(queue: TaskQueue, names: tuple[str, ...]) -> None:
    assert who(with_header(queue, "10.0.0.1"), *names) == 403


def test_13_a_forwarded_address_does_not_count(queue: TaskQueue) -> None:
    client = with_header(queue, "127.0.0.1")
    headers = {
        "remote-user": "alice",
        "x-forwarded-for": "10.0.0.1",
        "forwarded": "for=10.0.0.1",
        "x-real-ip": "10.0.0.1",
    }
    assert client.get("/api/v1/me", headers=headers).status_code == 403


def test_13_the_header_of_a_dashboard_without_a_proxy_says_nothing(queue: TaskQueue) -> None:
    client = client_of(Dashboard(queue, auth=Doors(TOKEN)))
    assert client.get("/api/v1/me", headers={"remote-user": "alice"}).status_code == 401


def test_users_of_a_proxy_have_tokens_for_forms(queue: TaskQueue, users: Path) -> None:
    client = with_header(queue, "10.0.0.1", People(str(users), "users"))
    client.headers["remote-user"] = "alice"
    path, form = "/tasks/9/cancel", {"x": "y"}
    assert client.post(path, data=form, headers={"origin": HOST}).status_code == 403
    assert client.post(path, data=form, headers=form_headers(client)).status_code != 403
