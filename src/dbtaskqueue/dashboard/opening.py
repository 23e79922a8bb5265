"""What everybody may read: static files, the sign-in page, and whether the dashboard runs."""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse, Response

from ..errors import TaskQueueError
from .auth import Refused
from .call import Call

_READY_EVERY = 0.2
_OWN_PATH = re.compile(r"/(?:[\w.-][\w/.-]*)?(?:\?[\w.~%&=+:,*/-]*)?", re.ASCII)
"""The path of a page, with its query string, as ``Call.here`` writes it. It never begins with two slashes."""


def static(call: Call) -> Response:
    """Return a static file. Its path has a hash of its content, so browsers keep it forever."""
    found = call.dashboard.static.find(call.request.path_params["hash"], call.request.path_params["file"])
    if found is None:
        raise Refused(404, "there is no such file")
    content, kind = found
    return Response(content, headers={"cache-control": "public, max-age=31536000, immutable"}, media_type=kind)


def login_page(call: Call) -> Response:
    """Show the form to sign in."""
    return call.dashboard.way_in_page(call, 200, wanted=call.query.text("next", "/"))


def login(call: Call) -> Response:
    """Sign in, and go where the user wanted to go."""
    name, password, wanted = (call.form.get(field, "") for field in ("name", "password", "next"))
    if not (isinstance(name, str) and isinstance(password, str) and name and password):
        return call.dashboard.way_in_page(call, 422, "give a name and a password")
    try:
        cookie = call.dashboard.way_in.sign_in(call.request, name, password)
    except Refused as refused:
        response = call.dashboard.way_in_page(call, refused.status, refused.reason, name, str(wanted))
        response.headers.update(refused.headers)
        return response
    response = call.redirect("/")
    response.headers["location"] = call.url("") + (wanted if is_own_path(wanted) else "/")
    call.set_cookie(response, *cookie)
    return response


def logout(call: Call) -> Response:
    """Sign out."""
    response = call.redirect("/login")
    call.set_cookie(response, *call.dashboard.way_in.sign_out())
    return response


def is_own_path(text: object) -> bool:
    """Return whether a text is the path of one of our pages, and of no other site."""
    return isinstance(text, str) and _OWN_PATH.fullmatch(text) is not None


def health_live(call: Call) -> Response:
    """Say that the dashboard runs."""
    return PlainTextResponse("ok\n")


def health_ready(call: Call) -> Response:
    """Say whether the database answers."""
    try:  # one question for all who ask: a database that hangs must not take all threads
        call.dashboard.looks.part("ready", lambda: call.queue.store.is_paused("default"), _READY_EVERY)
    except TaskQueueError:
        return PlainTextResponse("unavailable\n", 503)
    return PlainTextResponse("ok\n")
