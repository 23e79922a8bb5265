"""The names under which the attempts of tasks are counted. Pure."""

from __future__ import annotations

COMMANDS, CALLBACK = "(commands)", "(callback)"
"""The names that are shown for tasks without a task function."""
OTHER = "(other)"
"""The name under which rare functions are counted together, if there are very many."""


def name_of(function: str | None, command: int) -> str:
    """Return the name under which a task is counted."""
    return COMMANDS if command else CALLBACK if function is None else function
