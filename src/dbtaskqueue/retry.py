"""How long a failed task waits before it is tried again. Pure."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass

from .checks import MOST, is_count, is_number, shown


@dataclass(frozen=True)
class RetryPolicy:
    """The delay before each retry, and how many attempts a task gets.

    The wait before retry *n* is ``delay × n`` seconds for the first ``linear`` retries; after that
    the last one times ``factor`` for each further retry. It is multiplied by a random number from
    ``1 − jitter`` to ``1 + jitter`` and never exceeds ``max_delay`` seconds. ``max_attempts`` counts
    runs, the first included; None retries for ever. The defaults wait 60, 120, 180, 240, 300, 600,
    1200 … seconds, at most a day, ten attempts in all: those of DBIx::TaskQueue.

    Raises ValueError for a number out of range.
    """

    delay: float = 60.0
    linear: int = 5
    factor: float = 2.0
    max_delay: float = 86400.0
    jitter: float = 0.0
    max_attempts: int | None = 10

    def __post_init__(self) -> None:
        for name in ("delay", "factor", "max_delay", "jitter"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"RetryPolicy: {name} must be a finite number of at least 0, not {shown(value)}")
        if self.jitter > 1:
            raise ValueError(f"RetryPolicy: jitter must be between 0 and 1, not {shown(self.jitter)}")
        if not is_count(self.linear) or self.linear > MOST:
            raise ValueError(f"RetryPolicy: linear must be a whole number from 1 to {MOST}, not {shown(self.linear)}")
        check_max_attempts(self.max_attempts, or_none=True)

    def delay_before(self, n: int) -> float:
        """The seconds to wait before retry ``n``, numbered from 1."""
        if not is_count(n):
            raise ValueError(f"retries are numbered from 1, not {shown(n)}")
        base = float(self.delay) * min(n, self.linear)
        if n > self.linear:
            try:
                base *= float(self.factor) ** (n - self.linear)
            except OverflowError:
                base = math.inf if base else 0.0
        if self.jitter:
            base *= random.uniform(1 - self.jitter, 1 + self.jitter)
        return min(base, self.max_delay)

    def to_json(self) -> str | None:
        """The policy as it is stored with a task; None for the default one."""
        return None if self is DEFAULT or self == DEFAULT else json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str | None) -> RetryPolicy:
        """The policy stored with a task; ``DEFAULT`` itself where there is none, or the text cannot be read.

        Keys that a newer version may have stored are ignored.
        """
        if text is None:
            return DEFAULT
        try:
            stored = json.loads(text)
            if not isinstance(stored, dict):
                return DEFAULT
            known = {name: stored[name] for name in RetryPolicy.__dataclass_fields__ if name in stored}
            return RetryPolicy(**known)
        except (TypeError, ValueError, RecursionError):
            return DEFAULT


def check_policy(policy: RetryPolicy) -> RetryPolicy:
    """``policy`` if it is one; else TypeError."""
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"retry is a RetryPolicy, not {shown(policy)}")
    return policy


def check_max_attempts(value: int | None, *, or_none: bool) -> None:
    """Raise ValueError unless ``value`` counts attempts: a whole number of at least 1."""
    if value is None and or_none:
        return
    if not is_count(value) or value is None or value > MOST:
        raise ValueError(f"max_attempts must be a whole number from 1 to {MOST}, not {shown(value)}")


DEFAULT = RetryPolicy()
