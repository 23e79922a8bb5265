"""A file that cannot be used gives a clear one-line error, and nothing is created or damaged."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from helpers import documented_options, run_python, until, with_option

from dbtaskqueue import ConfigurationError, StoreUnavailable, TaskQueue, TaskQueueError
from dbtaskqueue._store.sqlite import connections
from dbtaskqueue._system.linux import Linux
from dbtaskqueue._system.processes import system

pytestmark = pytest.mark.engine("sqlite")


def check_refused(url: str, word: str) -> None:
    """Check that opening fails with one line that explains the problem and names the file."""
    with pytest.raises(TaskQueueError, match=word) as caught:
        TaskQueue(url)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message


def test_a_missing_directory(tmp_path: Path) -> None:
    check_refused(f"sqlite:///{tmp_path}/no/such/file.sqlite", "directory .* does not exist")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_as_file(tmp_path: Path) -> None:
    check_refused(f"sqlite:///{tmp_path}", "directory, not a file")


def test_a_file_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    check_refused(f"sqlite:///{tmp_path}/file/queue.sqlite", "file")


@pytest.mark.parametrize("content", [b"this is not a database, but a letter\n" * 100, os.urandom(9000)], ids=len)
def test_a_corrupt_file_is_refused_and_not_changed(url: str, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "taskqueue.sqlite"
    path.write_bytes(content)
    check_refused(url, "not a SQLite database, or a damaged one")
    assert path.read_bytes() == content


def test_a_file_that_is_damaged_in_the_middle(url: str, tmp_path: Path) -> None:
    with TaskQueue(url) as queue:
        queue.enqueue_many(["x" * 1000] * 500)
    path = tmp_path / "taskqueue.sqlite"
    content = bytearray(path.read_bytes())
    for page in range(4096, len(content), 4096):
        content[page : page + 4096] = b"\xff" * len(content[page : page + 4096])
    path.write_bytes(content)
    with pytest.raises(TaskQueueError, match="damaged"):
        TaskQueue(url).tasks()


def test_every_documented_option_of_a_url_opens_a_queue(url: str) -> None:
    options = {"synchronous": ["FULL", "EXTRA", "NORMAL"], "max_payload": ["2000"]}
    assert set(options) == documented_options("SQLite")
    for name, values in options.items():
        for value in values:
            with TaskQueue(with_option(url, f"{name}={value}")) as queue:
                assert queue.get(queue.enqueue(value).id).payload == value


def test_an_empty_file_becomes_a_database(url: str, tmp_path: Path) -> None:
    (tmp_path / "taskqueue.sqlite").touch()
    with TaskQueue(url) as queue:
        assert queue.enqueue().id == 1


def test_a_path_with_odd_characters(tmp_path: Path) -> None:
    for name in ("with space", "per%cent", "que?ry", "ha#sh", "ünï😀", "a'b\"c", "semi;colon", "plus+and&"):
        quoted = name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        with TaskQueue(f"sqlite:///{tmp_path}/{quoted}.sqlite") as queue:
            queue.enqueue(name)
        assert (tmp_path / f"{name}.sqlite").exists()


def test_a_relative_path_is_resolved_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with TaskQueue("sqlite:///relative.sqlite") as queue:
        queue.enqueue("x")
        monkeypatch.chdir(tmp_path / "elsewhere")
        queue.store.disconnect()
        assert queue.tasks()[0].payload == "x"
    assert (tmp_path / "relative.sqlite").exists()


def test_the_default_is_a_file_in_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DBTASKQUEUE_URL", raising=False)
    TaskQueue().close()
    assert (tmp_path / "taskqueue.sqlite").exists()
    monkeypatch.setenv("DBTASKQUEUE_URL", f"sqlite:///{tmp_path}/from_environment.sqlite")
    TaskQueue().close()
    assert (tmp_path / "from_environment.sqlite").exists()


def test_memory_is_a_temporary_file(tmp_path: Path) -> None:
    queue = TaskQueue("sqlite:///:memory:")
    other = TaskQueue("sqlite:///:memory:")
    queue.enqueue("x")
    assert other.tasks() == []
    directory = Path(queue.store.path).parent  # type: ignore[attr-defined]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    queue.close()
    other.close()
    assert not directory.exists()


# -- permissions: root may do everything, so a subprocess drops its privileges --------------------------

UNPRIVILEGED = """
import os, sys
import dbtaskqueue
from dbtaskqueue import TaskQueue, TaskQueueError
TaskQueue("sqlite:///:memory:").close()  # imports modules that may not be readable after setuid
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
try:
    queue = TaskQueue(sys.argv[1])
    print("opened", len(queue.tasks()))
    print(queue.enqueue().id)
except TaskQueueError as error:
    print(type(error).__name__, str(error))
"""


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory that another user can access."""
    directory = tmp_path
    while directory != directory.parent and directory.stat().st_uid == os.getuid():
        directory.chmod(directory.stat().st_mode | 0o755)
        directory = directory.parent
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def make(directory: Path) -> str:
    url = f"sqlite:///{directory}/queue.sqlite"
    with TaskQueue(url) as queue:
        queue.enqueue()
    return url


def test_a_read_only_file(shared: Path) -> None:
    url = make(shared)
    (shared / "queue.sqlite").chmod(0o444)
    shared.chmod(0o555 if os.getuid() else 0o755)
    answer = run_python(UNPRIVILEGED, url)
    assert answer.split()[0] in ("ConfigurationError", "StoreUnavailable"), answer
    assert "must be able to read and write" in answer
    assert answer.count("\n") == 1


def test_a_file_without_permissions(shared: Path) -> None:
    url = make(shared)
    (shared / "queue.sqlite").chmod(0o000)
    answer = run_python(UNPRIVILEGED, url)
    assert answer.startswith("ConfigurationError"), answer
    assert "must be able to read and write" in answer


def test_a_directory_without_permissions(shared: Path) -> None:
    shared.chmod(0o755 if os.getuid() == 0 else 0o555)
    answer = run_python(UNPRIVILEGED, f"sqlite:///{shared}/new.sqlite")
    assert answer.startswith("ConfigurationError"), answer
    assert str(shared) in answer
    assert list(shared.iterdir()) == []


# -- a file that disappears --------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["deleted", "replaced"])
def test_a_file_that_is_deleted_or_replaced_is_noticed(url: str, tmp_path: Path, act: str) -> None:
    """Data written to a file without a name would be lost."""
    queue = TaskQueue(url)
    queue.enqueue()
    for path in tmp_path.glob("taskqueue.sqlite*"):
        path.unlink()
    if act == "replaced":
        TaskQueue(url).close()

    def refusal() -> StoreUnavailable | None:
        try:
            queue.enqueue()
        except StoreUnavailable as error:
            return error
        return None

    error = until(refusal, what="a refusal")
    assert error is not None
    assert "deleted or replaced" in str(error)
    assert error.maybe_done is False
    queue.close()


def test_a_lock_of_another_program(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TaskQueue(url) as queue:
        monkeypatch.setattr(connections, "LOCK_PATIENCE", 0.1)
        connection = sqlite3.connect(tmp_path / "taskqueue.sqlite", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked"):
            queue.enqueue("refused")
        assert queue.tasks() == []
        connection.execute("ROLLBACK")
        connection.close()
        assert queue.enqueue("accepted").id == 1


def test_an_enqueue_waits_for_a_lock(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TaskQueue(url) as queue:
        connection = sqlite3.connect(tmp_path / "taskqueue.sqlite", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")

        def commit_at_the_second_try(low: float, high: float) -> float:
            if connection.in_transaction and len(tries) == 1:
                connection.execute("COMMIT")
            tries.append(None)
            return low

        tries: list[None] = []
        monkeypatch.setattr(connections.random, "uniform", commit_at_the_second_try)
        assert queue.enqueue("after the lock").id == 1
        assert len(tries) == 2
        connection.close()


def test_an_enqueue_after_an_interrupt_that_left_a_transaction_open(url: str, tmp_path: Path) -> None:
    """A single statement must not become part of the open transaction: nothing would commit it."""
    with TaskQueue(url) as queue:
        queue.enqueue("before")
        writer = queue.store._connections._writer  # type: ignore[attr-defined]
        writer.connection.execute("BEGIN IMMEDIATE")
        queue.enqueue("after")
        with closing(sqlite3.connect(tmp_path / "taskqueue.sqlite")) as connection:
            assert connection.execute("SELECT count(*) FROM dbtaskqueue_task").fetchone() == (2,)


def test_after_an_io_error_an_enqueue_may_have_been_stored(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single statement commits, too, so the error may have come from the commit."""
    with TaskQueue(url) as queue:

        def fail(self: object, task: object) -> int:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
            raise error

        monkeypatch.setattr(connections.SqliteTransaction, "insert", fail)
        with pytest.raises(StoreUnavailable, match="I/O") as caught:
            queue.enqueue()
        assert caught.value.maybe_done is True


@pytest.mark.parametrize("create", [True, False])
def test_a_lock_while_opening_is_not_a_url_error(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, create: bool
) -> None:
    TaskQueue(url).close()
    monkeypatch.setattr(connections, "LOCK_PATIENCE", 0.1)
    connection = sqlite3.connect(tmp_path / "taskqueue.sqlite", isolation_level=None)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable, match="locked") as caught:
        TaskQueue(url, create=create)
    assert caught.value.maybe_done is False
    connection.close()
    TaskQueue(url, create=create).close()


@pytest.mark.parametrize("code", ["SQLITE_IOERR_READ", "SQLITE_FULL", "SQLITE_BUSY_RECOVERY"])
def test_a_temporary_error_while_opening_is_not_a_url_error(
    url: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    def fail(self: object, mode: str) -> None:
        error = sqlite3.OperationalError("simulated error")
        error.sqlite_errorname = code
        raise error

    monkeypatch.setattr(connections.SqliteConnections, "_connect", fail)
    with pytest.raises(StoreUnavailable):
        TaskQueue(url)


# -- network file systems ----------------------------------------------------------------------------

MOUNTS = """\
22 28 0:20 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 22 0:40 / /mnt/net rw shared:2 - nfs4 server:/export rw
32 22 0:41 / /mnt/net\\040work rw - cifs //server/share rw
33 31 0:42 / /mnt/net/local rw - ext4 /dev/sdb1 rw
34 22 0:43 / /mnt/ssh rw - fuse.sshfs user@host: rw
35 22 0:44 / /mnt/network rw - ext4 /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/queue.sqlite", "ext4"),
        ("/mnt/net/queue.sqlite", "nfs4"),
        ("/mnt/net work/deep/queue.sqlite", "cifs"),
        ("/mnt/net/local/queue.sqlite", "ext4"),
        ("/mnt/ssh/queue.sqlite", "fuse.sshfs"),
        ("/mnt/network/queue.sqlite", "ext4"),
    ],
)
def test_the_file_system_of_a_path(tmp_path: Path, path: str, kind: str) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS)
    assert Linux().file_system(path, str(mounts)) == kind


def test_without_readable_mounts_the_file_system_is_unknown(tmp_path: Path) -> None:
    assert Linux().file_system("/home/queue.sqlite", str(tmp_path / "missing")) is None


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(system, "file_system", lambda path: kind)
    with pytest.raises(ConfigurationError, match=f"network file system \\({kind}\\)"):
        TaskQueue(url)
    assert list(tmp_path.iterdir()) == []


# -- commits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "level"), [("", 2), ("?synchronous=NORMAL", 1), ("?synchronous=full", 2), ("?synchronous=EXTRA", 3)]
)
def test_how_durable_a_commit_is(url: str, tmp_path: Path, option: str, level: int) -> None:
    """The journal mode and ``synchronous`` are read from the connection that writes."""
    with TaskQueue(url + option) as queue:
        write = queue.store._connections.write  # type: ignore[attr-defined]
        assert write(lambda tx: tx.connection.execute("PRAGMA synchronous").fetchone()) == (level,)
    with contextlib.closing(sqlite3.connect(tmp_path / "taskqueue.sqlite")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


FAILING_DISK = """
import os, resource, sys
from dbtaskqueue import StoreUnavailable, TaskQueue
queue = TaskQueue(sys.argv[1])
queue.enqueue("stored")
written = os.stat(sys.argv[2] + "-wal").st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (written, written))  # a larger file fails in the middle of a commit
for payloads in (["one statement"], ["a", "transaction"]):
    try:
        queue.enqueue_many(payloads)
    except StoreUnavailable as error:
        print(error.maybe_done, error)
try:
    with queue.store._connections.own_transaction() as tx:
        tx.change("cancel", {"id": 1, "now": 1, "running": 1})
except StoreUnavailable as error:
    print(error.maybe_done, error)
"""


def test_after_a_disk_error_at_a_commit_the_write_may_be_stored(url: str, tmp_path: Path) -> None:
    """SQLite cannot know, either: the next reader of the log may find what was written before the error."""
    printed = run_python(FAILING_DISK, url, tmp_path / "taskqueue.sqlite").splitlines()
    assert [line.partition(" ")[0] for line in printed] == ["True"] * 3, printed
    assert all("SQLITE_IOERR" in line for line in printed)
    with TaskQueue(url) as queue:
        assert "stored" in [task.payload for task in queue.tasks()]
