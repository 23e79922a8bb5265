"""The user that runs a server.

PostgreSQL and PgBouncer refuse to run as root, so root runs all servers as ``nobody``.
"""

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
    """Arguments for ``subprocess``; all None if the tests do not run as root."""

    user: int | None
    group: int | None
    groups: list[int] | None


def account() -> Account:
    """Return the account for servers."""
    if os.geteuid() != 0:
        return Account(None, None, None)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid, [])


def hand_over(directory: Path) -> None:
    """Make the servers' account the owner of a directory and its contents."""
    user, group, _ = account()
    if user is None or group is None:
        return
    for path in (directory, *directory.rglob("*")):
        os.chown(path, user, group, follow_symlinks=False)


def new_directory(name: str, place: Path | None = None) -> Path:
    """Make a directory of the servers' account, with a short path: that of a Unix socket may have at most 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix=f"dbtq-{name}-", dir=place))
    hand_over(directory)
    return directory


def run(command: Sequence[str | Path], directory: Path) -> str:
    """Run a server's tool as the servers' account, in ``directory``; return what it printed. Fail if the tool fails."""
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
    """Whether the servers' account may run a program: ``nobody`` has no access to a virtualenv under /root."""
    user, group, groups = account()
    try:
        subprocess.run([binary, "--version"], user=user, group=group, extra_groups=groups, capture_output=True)
    except PermissionError:
        return False
    return True


def copied(tree: Path) -> Path:
    """Copy a program's directory to where the servers' account can read it. ``remove_copy`` removes the copy.

    Programs of a wheel find their libraries in ``PACKAGE.libs`` beside their package, so that is copied, too.
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
