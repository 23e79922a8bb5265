"""The rivals are installed once, in an environment of their own, never in that of the project."""

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
    """Where the rivals are installed; ``why_not`` has the reason if they are not."""

    directory: Path
    why_not: str = ""

    @property
    def python(self) -> str:
        """Return the interpreter that can import them."""
        return str(self.directory / "bin" / "python")

    @property
    def versions(self) -> str:
        """Return the versions of the rivals."""
        return self.why_not or ", ".join(requirement.replace("==", " ") for requirement in REQUIREMENTS)


def install(directory: Path) -> Rivals:
    """Return the environment with all rivals; the first run creates it."""
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
            return Rivals(directory, "no rivals: the installation failed, see above")
    stamp.write_text(wanted)
    return Rivals(directory)


def _python_with_pip() -> str | None:
    """Return an interpreter with pip: the project's environment may have none, but its base interpreter has."""
    candidates = (sys.executable, getattr(sys, "_base_executable", None), shutil.which("python3"))
    for python in filter(None, candidates):
        if subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0:
            return python
    return None
