"""Functions that tests submit to executors, where another process finds them."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent  # noqa: F401 - a function that is not this module's own
from typing import Any

prepared = "no"
preparations = 0


class OwnError(Exception):
    """An exception of an application."""


def double(value: Any) -> Any:
    return value * 2


def same(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


def negated(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as there are many."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return -function(*args)

    return call


@negated
def square(value: int) -> int:
    return value * value


async def double_later(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


def fail(message: str) -> None:
    raise ValueError(message)


def fail_with_own() -> None:
    raise OwnError("own")


def fail_with_key() -> None:
    raise KeyError("k")


def give_up(value: int) -> None:
    sys.exit(value)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path: str) -> str:
    """Wait until a file exists, or for a minute: a test that fails must not block the executor's end."""
    deadline = time.monotonic() + 60
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return path


def touch(path: str) -> int:
    """Add a line to a file."""
    with open(path, "a") as out:
        out.write(f"{os.getpid()}\n")
    return os.getpid()


def fail_once(path: str) -> str:
    """Fail if a file does not exist, and make it."""
    if not Path(path).exists():
        Path(path).touch()
        raise ValueError("once")
    return "done"


def prepare(word: str) -> None:
    global prepared
    prepared = word


def fail_to_prepare() -> None:
    raise ValueError("no model")


def is_prepared() -> str:
    return prepared


def unstorable() -> object:
    return object()


def count_preparations() -> None:
    global preparations
    preparations += 1
