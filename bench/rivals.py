"""The rivals, in an environment of their own: installed once, never into that of the project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REQUIREMENTS = ("huey==3.5.4", "rq==3.0.0", "redis==8.1.0", "pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0")


@dataclass(frozen=True)
class Rivals:
    """Where the rivals are installed; ``why_not`` says why they could not be."""

    directory: Path
    why_not: str = ""

    @property
    def python(self) -> str:
        """The interpreter that can import them."""
        return str(self.directory / "bin" / "python")

    @property
    def versions(self) -> str:
        """What the figures were measured against."""
        return self.why_not or ", ".join(requirement.replace("==", " ") for requirement in REQUIREMENTS)


def install(directory: Path) -> Rivals:
    """The environment with all rivals; made by the first run, used by the next."""
    stamp = directory / ".installed"
    wanted = "\n".join((sys.version, *REQUIREMENTS))
    if stamp.exists() and stamp.read_text() == wanted:
        return Rivals(directory)
    print(f"installing {', '.join(REQUIREMENTS)} into {directory.name}/", file=sys.stderr, flush=True)
    python = _python_with_pip()
    if python is None:
        return Rivals(directory, "no rivals: there is no pip to install them with")
    commands = (
        [sys.executable, "-m", "venv", "--without-pip", str(directory)],
        [python, "-m", "pip", "--python", str(directory / "bin" / "python"), "install", "--quiet",
         "--no-cache-dir", "--disable-pip-version-check", *REQUIREMENTS],
    )  # fmt: skip
    environment = os.environ | {"PIP_NO_CACHE_DIR": "1"}  # for the pip that builds in isolation, too
    for command in commands:
        if subprocess.run(command, env=environment).returncode:
            return Rivals(directory, "no rivals: they could not be installed, see above")
    stamp.write_text(wanted)
    return Rivals(directory)


def _python_with_pip() -> str | None:
    """The environment of the project has no pip of its own; the interpreter it was made from has."""
    candidates = (sys.executable, getattr(sys, "_base_executable", None), shutil.which("python3"))
    for python in filter(None, candidates):
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return python
    return None
