"""The command dashboard: serve the pages and the API."""

from __future__ import annotations

import secrets
import socket

import click

from .options import open_queue, url_option


@click.command()
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8484, metavar="PORT", help="The port; 0 for a free one.")
@click.option("--read-only", is_flag=True, help="Nobody can change anything.")
@url_option
@click.pass_obj
def dashboard(url: str | None, host: str, port: int, read_only: bool) -> None:
    """Serve the dashboard."""
    from ..dashboard import Dashboard
    from ..dashboard.server import serve
    from ..dashboard.ways import Doors

    token = secrets.token_urlsafe(32)
    with open_queue(url) as queue:
        app = Dashboard(queue, auth=Doors(token), read_only=read_only)
        with socket.create_server((host, port)) as listener:
            found = listener.getsockname()[1]
            serve(app, listener, lambda: click.echo(f"dashboard: http://{host}:{found}/?token={token}"))
