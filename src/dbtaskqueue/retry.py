"""The retry policy: how long a failed task waits before its next attempt. Pure."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from datetime import timedelta

from .checks import MOST, check_delay, is_count, is_number, shown


@dataclass(frozen=True, init=False)
class RetryPolicy:
    """The delay before each retry, and the number of attempts that a task gets.

    ``delay`` and ``max_delay`` are seconds or timedeltas, and are kept as seconds. The delay before retry *n* is
    ``delay × n`` for the first ``linear`` retries. Each further retry multiplies the last delay by ``factor``. The
    delay is multiplied by a random number from ``1 − jitter`` to ``1 + jitter``, and then capped at ``max_delay``.
    ``max_attempts`` includes the first attempt. None: retry without limit.

    The defaults are those of DBIx::TaskQueue: 60, 120, 180, 240, 300, 600, 1200 … seconds, at most a day, and ten
    attempts.

    Raises ValueError if a number is out of range.
    """

    delay: float
    linear: int
    factor: float
    max_delay: float
    jitter: float
    max_attempts: int | None

    def __init__(
        self,
        delay: float | timedelta = 60.0,
        linear: int = 5,
        factor: float = 2.0,
        max_delay: float | timedelta = 86400.0,
        jitter: float = 0.0,
        max_attempts: int | None = 10,
    ) -> None:
        for name, value in (("factor", factor), ("jitter", jitter)):
            if not is_number(value) or not 0 <= value < math.inf:
                raise ValueError(f"RetryPolicy: {name} must be a finite number of at least 0, not {shown(value)}")
        if jitter > 1:
            raise ValueError(f"RetryPolicy: jitter must be between 0 and 1, not {shown(jitter)}")
        if not is_count(linear) or linear > MOST:
            raise ValueError(f"RetryPolicy: linear must be a whole number from 1 to {MOST}, not {shown(linear)}")
        check_max_attempts(max_attempts, or_none=True)
        values = {
            "delay": check_delay(delay, "RetryPolicy: delay"),
            "linear": linear,
            "factor": factor,
            "max_delay": check_delay(max_delay, "RetryPolicy: max_delay"),
            "jitter": jitter,
            "max_attempts": max_attempts,
        }
        for field, checked in values.items():
            object.__setattr__(self, field, checked)  # frozen

    def delay_before(self, n: int) -> float:
        """Return the seconds to wait before retry ``n``, numbered from 1."""
        if not is_count(n):
            raise ValueError(f"the number of a retry must be a whole number of at least 1, not {shown(n)}")
        base = self.delay * min(n, self.linear)
        if n > self.linear:
            try:
                base *= float(self.factor) ** (n - self.linear)
            except OverflowError:
                base = math.inf if base else 0.0
        if self.jitter:
            base *= random.uniform(1 - self.jitter, 1 + self.jitter)
        return min(base, self.max_delay)


def check_policy(policy: RetryPolicy) -> RetryPolicy:
    """Return ``policy``. Raises TypeError if it is not a RetryPolicy."""
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"retry must be a RetryPolicy, not {shown(policy)}")
    return policy


def check_max_attempts(value: int | None, *, or_none: bool) -> None:
    """Raise ValueError unless ``value`` is a number of attempts: a whole number of at least 1."""
    if value is None and or_none:
        return
    if not is_count(value) or value is None or value > MOST:
        raise ValueError(f"max_attempts must be a whole number from 1 to {MOST}, not {shown(value)}")


DEFAULT = RetryPolicy()
