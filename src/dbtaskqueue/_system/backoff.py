"""How long to pause between tries. Pure."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 30


def doubling(tries: int, first: float, longest: float) -> float:
    """Return the pause in seconds after ``tries`` tries: ``first``, then twice as long each time, up to ``longest``."""
    return min(longest, first * 2.0 ** max(0, min(tries, _MOST_DOUBLINGS)))


def jittered(seconds: float, least: float = 0.5) -> float:
    """Return a random pause between ``least`` × ``seconds`` and ``seconds``, so that clients do not retry in step."""
    return seconds * random.uniform(least, 1)
