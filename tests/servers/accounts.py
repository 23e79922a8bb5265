"""As whom a server runs: PostgreSQL and PgBouncer refuse to run as root, so under root all are ``nobody``."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Account(NamedTuple):
    """What ``subprocess`` is told; nothing but None where the tests do not run as root."""

    user: int | None
    group: int | None
    groups: list[int] | None


def account() -> Account:
    """The account for servers."""
    if os.geteuid() != 0:
        return Account(None, None, None)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid, [])


def hand_over(directory: Path) -> None:
    """Let the servers' account own a directory and all that is in it."""
    user, group, _ = account()
    if user is None or group is None:
        return
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user, group, follow_symlinks=False)


def new_directory(name: str, place: Path | None = None) -> Path:
    """A directory of the servers' account; its path is short, since a Unix socket's may have 107 bytes only."""
    directory = Path(tempfile.mkdtemp(prefix=f"dbtq-{name}-", dir=place))
    hand_over(directory)
    return directory


def run(command: Sequence[str | Path], directory: Path) -> str:
    """Run a server's tool as the servers' account, in ``directory``; what it printed. Fails when the tool does."""
    user, group, groups = account()
    done = subprocess.run(
        command,
        cwd=directory,
        user=user,
        group=group,
        extra_groups=groups,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def may_run(binary: Path) -> bool:
    """Whether the servers' account reaches a program: a virtualenv under /root is closed to ``nobody``."""
    user, group, groups = account()
    try:
        subprocess.run([binary, "--version"], user=user, group=group, extra_groups=groups, capture_output=True)
    except PermissionError:
        return False
    return True


def copied(tree: Path) -> Path:
    """A copy of a program's directory that the servers' account can read, for ``remove_copy``.

    A wheel's programs find their libraries in ``PACKAGE.libs`` beside their package, so that is copied, too.
    """
    package = tree.parent
    libraries = package.with_name(f"{package.name}.libs")
    root = new_directory("bin")
    for source in (tree, libraries):
        if source.exists():
            shutil.copytree(source, root / source.relative_to(package.parent), symlinks=True)
    root.chmod(0o755)
    return root / tree.relative_to(package.parent)


def remove_copy(copy: Path) -> None:
    """Remove what ``copied`` made."""
    shutil.rmtree(copy.parent.parent, ignore_errors=True)
