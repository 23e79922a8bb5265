"""The names under which the attempts of tasks are counted. Pure."""

from __future__ import annotations

from collections.abc import Container, Sized
from typing import Protocol

COMMANDS, CALLBACK = "(commands)", "(callback)"
"""The names that are shown for tasks without a task function."""
OTHER = "(other)"
"""The name under which rare functions are counted together, if there are very many."""
MOST_PAIRS = 200
"""The most queues and functions that are told apart in a period."""

Pair = tuple[str, str]
"""A queue and the name of a function in it."""


class Pairs(Container[Pair], Sized, Protocol):
    """The pairs that a period has already."""


def name_of(function: str | None, command: int) -> str:
    """Return the name under which a task is counted."""
    return COMMANDS if command else CALLBACK if function is None else function


def counted_as(pair: Pair, known: Pairs, most: int = MOST_PAIRS) -> Pair:
    """Return under which queue and function to count in a period with at most ``most`` pairs.

    If there are many, further ones count for their queue as "(other)", and in the end all together.
    """
    if pair in known or len(known) < most * 3 // 4:
        return pair
    of_queue = pair[0], OTHER
    return of_queue if of_queue in known or len(known) < most - 1 else (OTHER, OTHER)
