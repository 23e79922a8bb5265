"""The database file: which one it is, whether this user may write it, and on which file system it is."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ..._system.processes import system
from ...errors import ConfigurationError

_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "ncpfs"),
    *("afpfs", "webdav"),  # macOS
}
_NETWORK_FUSE = {"fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone", "fuse.ceph", "fuse.nfs"}


def remove_directory(directory: str, owner: int) -> None:
    """Remove a directory and its files, if this is the process ``owner``."""
    if os.getpid() == owner:
        for file in Path(directory).glob("*"):
            file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            Path(directory).rmdir()


def identity(path: str) -> tuple[int, int] | None:
    """Return the device and the inode of a file; None if it cannot be found."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def is_no_directory(path: str) -> bool:
    """Return whether no such directory exists; False if this user lacks the permission to find out."""
    try:
        return not stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError:
        return False
    except OSError:
        return True


def refuse_network(path: str) -> None:
    """Raise ConfigurationError for a file on a network file system.

    WAL needs memory that all users of the file share: a network file system breaks it silently.
    """
    kind = system.file_system(path)
    if kind in _NETWORK or kind in _NETWORK_FUSE:
        raise ConfigurationError(f"{path} is on a network file system ({kind}), which SQLite cannot share safely")


def not_writable(path: str) -> list[str]:
    """Return which of the file, its log, the log's index and their directory this user may not write.

    SQLite needs them all. It creates the log and the index with the mode of the file, and does not update that later.
    """
    needed = (path, f"{path}-wal", f"{path}-shm", os.path.dirname(path))
    return [each for each in needed if os.path.lexists(each) and not os.access(each, os.W_OK)]


def unused_and_read_only(path: str) -> tuple[int, int] | None:
    """Return the time and the size of a file that no program has open, and that this user may not open for writing.

    Return None for any other file. While a program has a file in WAL mode open, its log exists.
    """
    try:
        status = os.stat(path)
    except OSError:
        return None
    if os.path.lexists(f"{path}-wal") or os.access(os.path.dirname(path), os.W_OK):
        return None
    return status.st_mtime_ns, status.st_size
