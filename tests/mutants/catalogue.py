"""The deliberate faults of ``make mutants``: small ones, where it matters.

Each replaces a text that occurs exactly once in its file. ``tests/unit/test_mutants.py`` checks that, so that this list
moves with the code. The tests of a mutant are part of ``make test``; name the ones that should notice, and no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import dbtaskqueue

ROOT = Path(dbtaskqueue.__file__).parent

CONFORMANCE = "tests/conformance"


class Mutant(NamedTuple):
    """One fault: in ``file`` (below the package), ``old`` becomes ``new``. ``tests`` should notice it.

    ``only`` is pytest's ``-k``: the engine whose SQL is broken, or the part of the tests that should notice.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    only: str = "sqlite"

    def apply(self, package: Path) -> None:
        """Write the fault into a copy of the package. ValueError where the text does not occur exactly once."""
        path = package / self.file
        text = path.read_text()
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"mutant {self.name!r}: its text occurs {found} times in {self.file}")
        path.write_text(text.replace(self.old, self.new))


def _conformance(*names: str) -> tuple[str, ...]:
    return tuple(f"{CONFORMANCE}/test_{name}.py" for name in names)


COMMON, SQLITE, POSTGRESQL, MARIADB = (
    f"_store/sql/{name}.sql" for name in ("common", "sqlite", "postgresql", "mariadb")
)

MUTANTS = [
    # -- who is alive --
    Mutant(
        "a worker is marked lost whatever its beat",
        COMMON,
        "WHERE id = :worker AND beat = :beat AND lost_at IS NULL",
        "WHERE id = :worker AND lost_at IS NULL",
        _conformance("guards"),
    ),
    Mutant(
        "a lost worker is marked lost again",
        COMMON,
        "AND beat = :beat AND lost_at IS NULL",
        "AND beat = :beat",
        _conformance("guards"),
    ),
    Mutant(
        "a heartbeat of a lost worker counts",
        COMMON,
        "SET beat = beat + 1 WHERE id = :worker AND lost_at IS NULL",
        "SET beat = beat + 1 WHERE id = :worker",
        _conformance("guards"),
    ),
    Mutant("a heartbeat does not count up", COMMON, "SET beat = beat + 1", "SET beat = beat", _conformance("guards")),
    Mutant(
        "a lost worker may claim (SQLite)",
        SQLITE,
        "           AND EXISTS (SELECT 1 FROM dbtaskqueue_worker WHERE id = :worker AND lost_at IS NULL)\n",
        "",
        _conformance("guards"),
    ),
    Mutant(
        "a lost worker may claim (PostgreSQL)",
        POSTGRESQL,
        "WHERE id = :worker AND lost_at IS NULL FOR SHARE",
        "WHERE id = :worker FOR SHARE",
        _conformance("guards"),
        "postgresql",
    ),
    Mutant(
        "a lost worker may claim (MariaDB)",
        MARIADB,
        "WHERE id = :worker AND lost_at IS NULL LOCK IN SHARE MODE",
        "WHERE id = :worker LOCK IN SHARE MODE",
        _conformance("guards"),
        "mariadb",
    ),
    Mutant(
        "tasks of a worker without a row stay held",
        COMMON,
        "WHERE living.id = dbtaskqueue_task.worker AND living.lost_at IS NULL)\n\n-- name: give_back_reserved",
        "WHERE living.lost_at IS NULL)\n\n-- name: give_back_reserved",
        _conformance("leaving", "rescue"),
    ),
    # -- tokens --
    Mutant(
        "a claim gives no new token (SQLite)",
        SQLITE,
        "SET state = :state, token = token + 1, worker = :worker",
        "SET state = :state, worker = :worker",
        _conformance("transitions", "fetch"),
    ),
    Mutant(
        "a claim gives no new token (PostgreSQL)",
        POSTGRESQL,
        "            SET token = token + 1, worker = :worker",
        "            SET worker = :worker",
        _conformance("transitions", "fetch"),
        "postgresql",
    ),
    Mutant(
        "a claim gives no new token (MariaDB)",
        MARIADB,
        "   SET token = token + 1, worker = :worker",
        "   SET worker = :worker",
        _conformance("transitions", "fetch"),
        "mariadb",
    ),
    Mutant(
        "a start compares no token",
        COMMON,
        "-- By the claim with this token.\nid = :id AND token = :token AND",
        "-- By the claim with this token.\nid = :id AND",
        _conformance("transitions"),
    ),
    Mutant(
        "a fail compares no token",
        COMMON,
        "-- name: is_running\nid = :id AND token = :token AND",
        "-- name: is_running\nid = :id AND",
        _conformance("transitions"),
    ),
    Mutant(
        "a finish compares no token",
        COMMON,
        "id = :id AND token = :token AND (state",
        "id = :id AND (state",
        _conformance("transitions"),
    ),
    Mutant(
        "a start compares no token (PostgreSQL)",
        POSTGRESQL,
        "id = :id AND token = :token AND CASE state WHEN 'reserved' THEN true ELSE",
        "id = :id AND CASE state WHEN 'reserved' THEN true ELSE",
        _conformance("transitions"),
        "postgresql",
    ),
    Mutant(
        "a finish compares no token (PostgreSQL)",
        POSTGRESQL,
        "id = :id AND token = :token AND CASE state WHEN 'running' THEN true WHEN",
        "id = :id AND CASE state WHEN 'running' THEN true WHEN",
        _conformance("transitions"),
        "postgresql",
    ),
    Mutant(
        "ends of a batch compare no token (SQLite)",
        SQLITE,
        "dbtaskqueue_task.id = ended.id AND dbtaskqueue_task.token = ended.token",
        "dbtaskqueue_task.id = ended.id",
        _conformance("guards"),
    ),
    Mutant(
        "ends of a batch compare no token (PostgreSQL)",
        POSTGRESQL,
        "WHERE task.id = ending.id AND task.token = ending.token",
        "WHERE task.id = ending.id",
        _conformance("guards"),
        "postgresql",
    ),
    Mutant(
        "ends of a batch compare no token (MariaDB)",
        MARIADB,
        "id IN ([[:id_n,]]) AND token = CASE id [[WHEN :id_n THEN :token_n]] END",
        "id IN ([[:id_n,]])",
        _conformance("guards"),
        "mariadb",
    ),
    Mutant(
        "a rescue of a reserved task gives no new token",
        COMMON,
        "SET token = token + 1, worker = NULL,\n       solo",
        "SET worker = NULL,\n       solo",
        _conformance("transitions", "rescue"),
    ),
    Mutant(
        "a rescue of a running task gives no new token",
        COMMON,
        "SET token = token + 1, due = :due, decided_at = :at, finished_at = :finished_at",
        "SET due = :due, decided_at = :at, finished_at = :finished_at",
        _conformance("transitions", "rescue"),
    ),
    Mutant(
        "a cancel leaves the token of a reserved task",
        COMMON,
        "token = CASE WHEN state = 'running' THEN token ELSE token + 1 END",
        "token = token",
        _conformance("transitions"),
    ),
    Mutant(
        "a purge leaves the token",
        COMMON,
        "SET token = token + 1, finished_at = :now, worker = NULL, state = 'abandoned'",
        "SET finished_at = :now, worker = NULL, state = 'abandoned'",
        _conformance("transitions", "operators"),
    ),
    Mutant(
        "a retry leaves the token",
        COMMON,
        "SET retried = token, token = token + 1, due",
        "SET retried = token, due",
        _conformance("transitions", "retry"),
    ),
    Mutant(
        "a suspension outlives its claim",
        COMMON,
        "CASE WHEN state = 'running' AND suspended = dbtaskqueue_task.token THEN 1",
        "CASE WHEN state = 'running' AND suspended IS NOT NULL THEN 1",
        _conformance("suspend"),
    ),
    # -- guards of transitions --
    Mutant(
        "a running task is started again",
        COMMON,
        "id = :id AND token = :token AND state = 'reserved'",
        "id = :id AND token = :token AND state IN ('reserved', 'running')",
        _conformance("transitions"),
    ),
    Mutant(
        "a reserved task fails",
        COMMON,
        "-- name: is_running\nid = :id AND token = :token AND state = 'running'",
        "-- name: is_running\nid = :id AND token = :token AND state IN ('reserved', 'running')",
        _conformance("transitions"),
    ),
    Mutant(
        "a task that was not started finishes",
        COMMON,
        "(state = 'running' OR state = 'reserved' AND shared = 1)\n\n-- name: keep",
        "(state = 'running' OR state = 'reserved')\n\n-- name: keep",
        _conformance("transitions"),
    ),
    Mutant(
        "a done task is cancelled",
        COMMON,
        "WHERE id = :id AND state IN ('pending', 'failed', 'reserved', 'running')",
        "WHERE id = :id",
        _conformance("transitions"),
    ),
    Mutant(
        "a pending task is retried",
        COMMON,
        "AND state IN ('failed', 'abandoned', 'cancelled', 'done')",
        "AND state IN ('failed', 'abandoned', 'cancelled', 'done', 'pending')",
        _conformance("transitions"),
    ),
    Mutant(
        "a running cancel ends the task at once",
        COMMON,
        "state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END",
        "state = 'cancelled'",
        _conformance("transitions"),
    ),
    Mutant(
        "a prune deletes what is not final",
        COMMON,
        "WHERE id {{in_ids}} AND state IN ('done', 'cancelled', 'abandoned') {{for_update}}",
        "WHERE id {{in_ids}} {{for_update}}",
        _conformance("guards"),
    ),
    Mutant(
        "a prune goes by the wrong side of the age",
        COMMON,
        "AND id > :after AND finished_at < :before",
        "AND id > :after AND finished_at > :before",
        _conformance("operators"),
    ),
    Mutant(
        "a paused queue is fetched from (SQLite)",
        SQLITE,
        "dbtaskqueue_queue WHERE name = :queue AND paused = 1)\n           AND EXISTS",
        "dbtaskqueue_queue WHERE name = :queue AND paused = 2)\n           AND EXISTS",
        _conformance("operators"),
    ),
    Mutant(
        "a paused queue is fetched from (PostgreSQL)",
        POSTGRESQL,
        "dbtaskqueue_queue WHERE name = :queue AND paused = 1)\n          LIMIT",
        "dbtaskqueue_queue WHERE name = :queue AND paused = 2)\n          LIMIT",
        _conformance("operators"),
        "postgresql",
    ),
    # -- attempts --
    Mutant(
        "a start spends no attempt",
        COMMON,
        "SET attempt = attempt + 1, started_at = :at, shared = 0",
        "SET started_at = :at, shared = 0",
        _conformance("transitions", "retry"),
    ),
    Mutant(
        "a release spends an attempt",
        COMMON,
        "CASE WHEN cancel_requested = 1 THEN attempt ELSE attempt - 1 END",
        "attempt",
        _conformance("transitions"),
    ),
    Mutant(
        "a retry leaves the attempts spent",
        COMMON,
        "decided_at = :now, base = attempt,",
        "decided_at = :now,",
        _conformance("retry"),
    ),
    Mutant(
        "a failure forgets that cancellation was requested",
        COMMON,
        "WHEN cancel_requested = 1 THEN 'cancelled' WHEN :final = 1",
        "WHEN :final = 1",
        _conformance("transitions"),
    ),
    Mutant(
        "a release forgets that cancellation was requested",
        COMMON,
        "state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END",
        "state = 'pending'",
        _conformance("transitions"),
    ),
    Mutant(
        "one attempt more than allowed",
        "ends.py",
        "attempt >= task.max_attempts",
        "attempt > task.max_attempts",
        _conformance("transitions", "retry"),
    ),
    Mutant("retry=False is ignored", "ends.py", "final = not retry or (", "final = (", _conformance("transitions")),
    Mutant(
        "the first lost attempt waits",
        "ends.py",
        "return now if lost_before == 0 else",
        "return now if lost_before < 0 else",
        _conformance("transitions"),
    ),
    Mutant(
        "every lost attempt is due at once",
        "ends.py",
        "return now if lost_before == 0 else",
        "return now if lost_before >= 0 else",
        _conformance("transitions"),
    ),
    Mutant(
        "lost attempts before a retry count",
        COMMON,
        "past.token > dbtaskqueue_task.retried\n           AND past.outcome = 'lost'",
        "past.outcome = 'lost'",
        _conformance("retry"),
    ),
    # -- due --
    Mutant(
        "a task is claimed before it is due (SQLite)", SQLITE, "AND task.due <= :now AND", "AND", _conformance("fetch")
    ),
    Mutant(
        "a task is claimed before it is due (PostgreSQL)",
        POSTGRESQL,
        "                   AND due <= :now AND command",
        "                   AND command",
        _conformance("fetch"),
        "postgresql",
    ),
    Mutant(
        "a task is claimed before it is due (MariaDB)",
        MARIADB,
        "OR due > :first_due AND due <= :now)",
        "OR due > :first_due)",
        _conformance("fetch"),
        "mariadb",
    ),
    Mutant(
        "the clock set back delays what is due",
        COMMON,
        "AND due > :now AND due <= decided_at",
        "AND due > :now AND due < 0",
        _conformance("clock"),
    ),
    Mutant(
        "the lowest priority comes first",
        "queue.py",
        "rank = -check_priority",
        "rank = check_priority",
        _conformance("fetch"),
    ),
    # -- values --
    Mutant(
        "an old token may keep a checkpoint",
        COMMON,
        "SELECT id, :name, :value FROM {{schema}}dbtaskqueue_task WHERE {{is_begun}} {{for_share}}",
        "SELECT id, :name, :value FROM {{schema}}dbtaskqueue_task WHERE id = :id {{for_share}}",
        _conformance("long_tasks"),
    ),
    Mutant(
        "an old token may note something",
        COMMON,
        "SELECT id, token, :name, :value FROM {{schema}}dbtaskqueue_task WHERE {{is_begun}}",
        "SELECT id, token, :name, :value FROM {{schema}}dbtaskqueue_task WHERE id = :id",
        _conformance("notes"),
    ),
    Mutant(
        "NaN is stored",
        "payload.py",
        "    if kind is float:\n        return math.isfinite(value)\n    if depth",
        "    if kind is float:\n        return True\n    if depth",
        ("tests/unit/test_payload.py", f"{CONFORMANCE}/test_bad_input.py"),
        "",
    ),
    Mutant(
        "a payload may exceed the limit by a byte",
        "payload.py",
        "if size > limit:",
        "if size > limit + 1:",
        ("tests/unit/test_payload.py", f"{CONFORMANCE}/test_bad_input.py"),
        "",
    ),
    Mutant(
        "a key may be used twice",
        COMMON,
        'WHERE queue = :queue AND "key" = :key AND finished_at IS NULL',
        'WHERE queue = :queue AND "key" = :key AND finished_at IS NOT NULL',
        _conformance("keys"),
    ),
    Mutant(
        "a finished task keeps its key",
        COMMON,
        'WHERE queue = :queue AND "key" = :key AND finished_at IS NULL',
        'WHERE queue = :queue AND "key" = :key',
        _conformance("keys"),
    ),
    Mutant(
        "a retry takes a key that is taken",
        "_store/verbs.py",
        'if tx.row("key_is_taken", {"id": task}):',
        "if False:",
        _conformance("keys"),
    ),
]
