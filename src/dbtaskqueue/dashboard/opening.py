"""What everybody may read: static files, the sign-in page, and whether the dashboard runs."""

from __future__ import annotations

from starlette.responses import PlainTextResponse, Response

from ..errors import TaskQueueError
from .auth import Refused
from .call import Call


def static(call: Call) -> Response:
    """Return a static file. Its path has a hash of its content, so browsers keep it forever."""
    found = call.dashboard.static.find(call.request.path_params["hash"], call.request.path_params["file"])
    if found is None:
        raise Refused(404, "there is no such file")
    content, kind = found
    return Response(content, headers={"cache-control": "public, max-age=31536000, immutable"}, media_type=kind)


def login_page(call: Call) -> Response:
    """Show the form to sign in."""
    return call.dashboard.way_in_page(call, 200)


def login(call: Call) -> Response:
    """Sign in."""
    raise Refused(404, "there are no passwords here")


def logout(call: Call) -> Response:
    """Sign out."""
    return call.redirect("/login")


def health_live(call: Call) -> Response:
    """Say that the dashboard runs."""
    return PlainTextResponse("ok\n")


def health_ready(call: Call) -> Response:
    """Say whether the database answers."""
    try:
        call.queue.store.is_paused("default")
    except TaskQueueError:
        return PlainTextResponse("unavailable\n", 503)
    return PlainTextResponse("ok\n")
