"""The command migrate: create the schema, or upgrade it."""

from __future__ import annotations

import os

import click

from .._formats.url import DEFAULT_URL
from .._store import open_store
from .options import url_option


@click.command()
@click.option("--sql", is_flag=True, help="Only print the SQL statements, for an administrator to run.")
@url_option
@click.pass_obj
def migrate(url: str | None, sql: bool) -> None:
    """Create the schema, or upgrade it."""
    store = open_store(url or os.environ.get("DBTASKQUEUE_URL") or DEFAULT_URL)
    try:
        if sql:
            click.echo("".join(f"{statement};\n\n" for statement in store.missing_statements()), nl=False)
            return
        before, after = store.migrate()
    finally:
        store.close()
    was = f"version {before}" if before else "none"
    click.echo(f"schema: {was} before, version {after} now")
