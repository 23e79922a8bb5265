"""A command line as a task's payload: what is allowed, and how it is stored. Pure.

No shell is used: ``argv`` is a program and its arguments, which are passed on unchanged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

from ..checks import shown
from ..errors import PayloadError
from .payload import JSON


def as_payload(argv: Sequence[str], cwd: str | os.PathLike[str] | None, env: Mapping[str, str] | None) -> JSON:
    """Return the payload of a command. Raises TypeError and ValueError for what cannot be run."""
    return {"argv": [*_argv(argv)], "cwd": _cwd(cwd), "env": None if (given := _env(env)) is None else {**given}}


class CommandLine(NamedTuple):
    """A command: a program and its arguments, its directory, and the variables added to the environment."""

    argv: list[str]
    cwd: str | None
    env: dict[str, str]


def from_payload(payload: JSON) -> CommandLine:
    """Return the command in a payload. Raises PayloadError if it is invalid: another program may have written it."""
    try:
        argv, cwd, env = itemgetter("argv", "cwd", "env")(payload)
        return CommandLine(_argv(argv), _cwd(cwd), _env(env) or {})
    except KeyError as missing:
        raise PayloadError(f"payload: not a command line: {missing.args[0]} is missing") from None
    except (TypeError, ValueError) as error:
        raise PayloadError(f"payload: not a command line: {error}") from None


def _argv(argv: Sequence[str]) -> list[str]:
    if isinstance(argv, str):
        raise TypeError(f"argv must be a list of words, not a single text; split it with shlex.split: {shown(argv)}")
    if not isinstance(argv, list | tuple):
        raise TypeError(f"argv must be a list of texts, not {shown(argv)}")
    if not argv:
        raise ValueError("argv is empty; its first word must be the program")
    words = [_text(word, f"argv[{index}]") for index, word in enumerate(argv)]
    if not words[0]:
        raise ValueError("argv[0] is empty; it must be the program")
    return words


def _cwd(cwd: str | os.PathLike[str] | None) -> str | None:
    if cwd is None:
        return None
    path = _text(os.fspath(cwd) if isinstance(cwd, os.PathLike) else cwd, "cwd")
    if not path:
        raise ValueError("cwd is empty; omit it to use the worker's own directory")
    return path


def _env(env: Mapping[str, str] | None) -> dict[str, str] | None:
    if env is None:
        return None
    if not isinstance(env, Mapping):
        raise TypeError(f"env must be a dict of texts, not {shown(env)}")
    for name in env:
        if not _text(name, "a name in env") or "=" in name:
            raise ValueError(f"env: a name must not be empty or contain '=': {shown(name)}")
    return {name: _text(value, f"env[{shown(name)}]") for name, value in env.items()}


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{where} must be a text, not {shown(value)}")
    if "\0" in value:
        raise ValueError(f"{where} contains U+0000, which cannot be passed to a program")
    return value
