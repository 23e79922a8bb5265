"""Refuse the name of a queue that is probably misspelt, and list the queues that exist."""

from __future__ import annotations

import difflib

import click

from .._store.contract import Store
from ..checks import listed
from .output import escaped, note


def refuse_unknown(store: Store, name: str | None) -> None:
    """Fail if no such queue exists, but others do: the name is probably misspelt.

    A queue exists while it has tasks or is paused. The queue "default" may be missing, since it need not be named.
    """
    known = store.queues()
    if name is None or name in known or not known:
        return
    why = f"no such queue: {name}. {_known(name, known)}"
    if name == "default":
        note(why)
    else:
        raise click.ClickException(escaped(why))


def warn_of_unknown(store: Store, name: str) -> None:
    """Note on stderr that the queue is new, which may be intended, and suggest similar names."""
    known = store.queues()
    if name not in known and known:
        note(f"queue {name} has no tasks yet. {_known(name, known)}")


def _known(name: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(name, known)
    question = f"Did you mean {' or '.join(similar)}? " if similar else ""
    return f"{question}Existing queues: {listed(known)}"
