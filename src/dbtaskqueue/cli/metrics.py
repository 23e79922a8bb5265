"""The command metrics: print, write or serve metrics for Prometheus."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

import click

from .._system.signals import noted_until_exit
from ..errors import ConfigurationError, StoreUnavailable
from ..queue import TaskQueue
from .options import address, checked, open_queue, url_option
from .output import escaped
from .working import set_up_logging

_INSTALL = "metrics need prometheus-client; install it with: pip install 'dbtaskqueue[metrics]'"
_POLL = 0.2
"""Seconds until a signal takes effect."""
_MODE = 0o644
"""Of the file: node_exporter, which reads it, runs as another user."""
_EXAMPLES = """
\b
Examples:
  dbtaskqueue metrics
  dbtaskqueue metrics --listen 127.0.0.1:9108
  dbtaskqueue metrics --listen 0.0.0.0:9108 --token-file tokens.txt
  dbtaskqueue metrics --output /var/lib/prometheus/node-exporter/tasks.prom
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    callback=checked(address),
    help="Serve them at /metrics, until stopped. Port 0: a free one.",
)
@click.option("--output", metavar="FILE.prom", help="Write them to this file, for node_exporter's textfile collector.")
@click.option(
    "--token-file",
    metavar="FILE",
    help="With --listen: tokens of programs that may read them, in lines ROLE NAME SHA256HEX.",
)
@url_option
@click.pass_obj
def metrics(url: str | None, listen: tuple[str, int] | None, output: str | None, token_file: str | None) -> None:
    """Print metrics of all queues for Prometheus.

    Without options, everything is counted and printed once. With --listen, it is counted in the background, for at most
    5 % of the time. An address that other machines reach needs --token-file.
    """
    if listen is not None and output is not None:
        raise click.UsageError("--listen and --output cannot be combined")
    if token_file is not None and listen is None:
        raise click.UsageError("--token-file needs --listen")
    _require_package()
    if listen is not None:
        _serve(url, *listen, token_file)
    elif output is not None:
        _write(url, Path(output))
    else:
        click.echo(_count(url), nl=False)


def _require_package() -> None:
    try:
        from .. import metrics  # noqa: F401
    except ModuleNotFoundError:
        raise click.ClickException(_INSTALL) from None


def _count(url: str | None) -> bytes:
    from ..metrics.census import Counting
    from ..metrics.exposition import expose
    from ..metrics.families import Families

    with open_queue(url) as task_queue:
        return expose(Families().of(Counting(task_queue.store)())).text


def _write(url: str | None, path: Path) -> None:
    """Write the file. If the database is unavailable, write that: an old file would look like a healthy database."""
    from ..metrics.exposition import expose
    from ..metrics.families import unavailable

    try:
        text = _count(url)
    except StoreUnavailable:
        _replace(path, expose(unavailable()).text)
        raise
    _replace(path, text)


def _replace(path: Path, content: bytes) -> None:
    """Replace a file all at once. Its temporary name is none that the collector reads."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with open(handle, "wb") as file:
            file.write(content)
        os.chmod(name, _MODE)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _serve(url: str | None, host: str, port: int, token_file: str | None) -> None:
    from ..metrics import MetricsCache
    from ..metrics.access import Tokens
    from ..metrics.server import MetricsServer

    raise_if_stopped = noted_until_exit(signal.SIGTERM, signal.SIGINT)
    set_up_logging("warning")
    with TaskQueue(url, create=False, open=False) as queue:
        cache = MetricsCache(lambda: queue.store)
        try:
            tokens = Tokens(token_file) if token_file else None
            server = MetricsServer(cache, host, port, tokens)
        except ConfigurationError as error:
            raise click.UsageError(escaped(str(error))) from None
        with server, contextlib.suppress(KeyboardInterrupt):
            threading.Thread(target=server.serve_forever, daemon=True).start()
            cache.render()
            click.echo(f"metrics: {server.url}")
            sys.stdout.flush()
            while True:
                raise_if_stopped()
                time.sleep(_POLL)
        cache.close()
