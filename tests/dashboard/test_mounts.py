"""The dashboard within other programs, with their login, under a path of theirs: each is a real server process."""

from __future__ import annotations

import contextlib
import html
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from helpers import python_path, until
from servers.ports import free_port

from dbtaskqueue import TaskQueue

pytestmark = pytest.mark.one_engine("the server does not depend on the database")

PREFIX = "/ops/tasks"
COMMON = """
import os
from dbtaskqueue import TaskQueue
from dbtaskqueue.dashboard import Dashboard, User
queue = TaskQueue(os.environ["DATABASE"], create=False)
"""
STARLETTE = (
    COMMON
    + """
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

def login(request):
    request.session["user"] = request.query_params["name"]
    return PlainTextResponse("hello")

def auth(request):
    name = request.session.get("user")
    return User(name, "operate") if name else None

routes = [Route("/login", login), Mount("/ops/tasks", Dashboard(queue, auth=auth))]
app = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, secret_key="x")])
"""
)
FASTAPI = (
    COMMON
    + """
from fastapi import FastAPI, Request, Response

app = FastAPI()

@app.get("/login")
def login(name: str, response: Response):
    response.set_cookie("user", name)
    return "hello"

async def auth(request: Request):
    name = request.cookies.get("user")
    return User(name, "operate") if name else None

app.mount("/ops/tasks", Dashboard(queue, auth=auth))
"""
)
FLASK = (
    COMMON
    + """
from flask import Flask, request, session
from flask.sessions import SecureCookieSessionInterface
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Request

app = Flask(__name__)
app.secret_key = "x"

@app.get("/login")
def login():
    session["user"] = request.args["name"]
    return "hello"

def auth(asgi_request):
    with app.request_context(asgi_request.scope["wsgi_environ"]):
        name = session.get("user")
    return User(name, "operate") if name else None

dashboard = Dashboard(queue, auth=auth)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/ops/tasks": dashboard.wsgi})
"""
)
DJANGO = (
    COMMON
    + """
import django
from django.conf import settings
from django.http import HttpResponse
from django.urls import path

def login(request):
    request.session["user"] = request.GET["name"]
    return HttpResponse("hello")

urlpatterns = [path("login", login)]
settings.configure(
    SECRET_KEY="x" * 50, ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
)
django.setup()
from django.contrib.sessions.backends.signed_cookies import SessionStore

def auth(request):
    name = SessionStore(request.cookies.get("sessionid")).get("user")
    return User(name, "operate") if name else None

dashboard = Dashboard(queue, auth=auth)
"""
)
DJANGO_WSGI = (
    DJANGO
    + """
from django.core.wsgi import get_wsgi_application
from werkzeug.middleware.dispatcher import DispatcherMiddleware

app = DispatcherMiddleware(get_wsgi_application(), {"/ops/tasks": dashboard.wsgi})
"""
)
DJANGO_ASGI = (
    DJANGO
    + """
from django.core.asgi import get_asgi_application

pages = get_asgi_application()

async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"].startswith("/ops/tasks"):
        await dashboard({**scope, "root_path": "/ops/tasks"}, receive, send)
    elif scope["type"] == "http":
        await pages(scope, receive, send)
"""
)
UVICORN = ("-m", "uvicorn", "program:app", "--port", "{port}", "--log-level", "warning")
GUNICORN = ("-m", "gunicorn", "program:app", "--bind", "127.0.0.1:{port}", "--workers", "2", "--threads", "4")
GUNICORN += ("--log-level", "warning")
HOSTS = {
    "starlette": (STARLETTE, UVICORN),
    "fastapi": (FASTAPI, UVICORN),
    "flask": (FLASK, GUNICORN),
    "flask preloaded": (FLASK, (*GUNICORN, "--preload")),
    "django wsgi": (DJANGO_WSGI, GUNICORN),
    "django asgi": (DJANGO_ASGI, UVICORN),
}
NEEDS = {"starlette": "itsdangerous"}


@contextlib.contextmanager
def host(url: str, directory: Path, name: str) -> Iterator[str]:
    """Run a program with the dashboard in it; yield its address."""
    program, words = HOSTS[name]
    (directory / "program.py").write_text(program)
    port = free_port()
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(directory), python_path()]),
        "DATABASE": url,
    }
    command = [sys.executable, *(word.format(port=port) for word in words)]
    process = subprocess.Popen(command, cwd=directory, env=environment)
    try:
        base = f"http://127.0.0.1:{port}"
        until(lambda: answers(base) or process.poll() is not None)
        assert process.poll() is None
        yield base
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def answers(base: str) -> bool:
    try:
        return httpx.get(f"{base}{PREFIX}/health/live").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("name", HOSTS)
def test_within_another_program(queue: TaskQueue, tmp_path: Path, name: str) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    with host(queue.url, tmp_path, name) as base:
        assert_mounted(queue, base)


def assert_mounted(queue: TaskQueue, base: str) -> None:
    """Check that the dashboard works at an address, with the login of the program around it."""
    task = queue.enqueue("x")
    with httpx.Client(base_url=base, timeout=30) as browser:
        assert browser.get(f"{PREFIX}/").status_code == 401
        assert browser.get(PREFIX).headers["location"].endswith(f"{PREFIX}/")
        assert browser.get("/login?name=alice").status_code == 200
        page = browser.get(f"{PREFIX}/")
        assert page.status_code == 200
        links = [html.unescape(link) for link in re.findall(r'(?:href|src|action)="(/[^"]*)"', page.text)]
        assert links
        assert [link for link in links if not link.startswith(f"{PREFIX}/")] == []
        for link in links:
            assert browser.get(link).status_code in (200, 405), link  # 405: what a form posts to
        me = browser.get(f"{PREFIX}/api/v1/me")
        assert (me.json()["name"], me.json()["role"]) == ("alice", "operate")
        assert f"Path={PREFIX}" in page.headers["set-cookie"]

        ours = {"origin": base, "x-csrf-token": me.json()["csrf"]}
        path = f"{PREFIX}/api/v1/tasks/{task.id}"
        assert browser.get(path).json()["state"] == "pending"
        for _ in range(10):  # whichever process answers
            assert browser.post(f"{path}/delete", headers=ours).status_code == 403
        assert browser.post(f"{path}/cancel").status_code == 403
        assert browser.post(f"{path}/cancel", headers={**ours, "origin": "https://evil.example"}).status_code == 403
        assert browser.post(f"{path}/cancel", headers=ours).status_code == 200
        assert browser.get(f"{PREFIX}/api/v1/queues", headers={"host": "evil.example"}).status_code == 421
        assert browser.get(f"{PREFIX}/nothing").status_code == 404
        large = {**ours, "content-type": "application/json"}
        assert browser.post(f"{path}/cancel", headers=large, content=b"x" * 3_000_000).status_code == 413
