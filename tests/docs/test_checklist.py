"""The production checklist: its commands run, in order, and print what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "production-checklist.md").read_text()
MODULE = re.search(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
SESSIONS = re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def pattern(expected: str) -> re.Pattern[str]:
    """A pattern of the expected output: ``…`` is any text, on a line of its own any number of lines."""
    parts = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".+") + r"\n" for line in expected.splitlines()
    ]
    return re.compile("".join(parts))


@pytest.mark.timeout(300)
def test_the_commands_print_what_the_page_says(tmp_path: Path) -> None:
    assert MODULE is not None
    (tmp_path / "app.py").write_text(MODULE[1])
    variables = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(tmp_path),
    }
    commands = 0
    for session in SESSIONS:
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE):
            words = ["sh", "-c", f"{command} 2>&1"]  # as on a terminal
            done = subprocess.run(words, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True, check=False)
            assert done.returncode == 0, f"{command}: {done.stdout}"
            assert pattern(expected).fullmatch(done.stdout), f"{command} prints:\n{done.stdout}\nnot:\n{expected}"
            commands += 1
    assert commands == TEXT.count("\n$ ")
