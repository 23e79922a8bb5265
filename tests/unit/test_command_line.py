"""Command lines as payloads: what is written can be read, and anything else is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dbtaskqueue import PayloadError
from dbtaskqueue._formats.command_line import CommandLine, as_payload, from_payload


def test_a_written_command_line_can_be_read() -> None:
    assert from_payload(as_payload(("ls", "-l"), None, None)) == CommandLine(["ls", "-l"], None, {})
    assert from_payload(as_payload(["ls"], Path("/srv"), {"A": "b"})) == CommandLine(["ls"], "/srv", {"A": "b"})


@pytest.mark.parametrize(
    "payload",
    [
        None,
        7,
        "ls",
        ["ls"],
        {},
        {"argv": ["ls"]},
        {"argv": "ls", "cwd": None, "env": None},
        {"argv": [], "cwd": None, "env": None},
        {"argv": [""], "cwd": None, "env": None},
        {"argv": ["ls", 7], "cwd": None, "env": None},
        {"argv": ["ls", "a\0b"], "cwd": None, "env": None},
        {"argv": ["ls"], "cwd": 7, "env": None},
        {"argv": ["ls"], "cwd": None, "env": ["A=b"]},
        {"argv": ["ls"], "cwd": None, "env": {"A": 7}},
        {"argv": ["ls"], "cwd": None, "env": {"A=B": "c"}},
    ],
)
def test_an_invalid_command_line(payload: Any) -> None:
    with pytest.raises(PayloadError, match=r"^payload: not a command line: "):
        from_payload(payload)
