"""The deliberate faults of ``make mutants``: small faults in important places.

Each replaces a text that occurs exactly once in its file. ``tests/unit/test_mutants.py`` checks that, so that this list
moves with the code. The tests of a mutant are part of ``make test``; name the ones that should notice, and no more.

If a mutant survives, a test is missing. Or the fault changes no behaviour: then remove the mutant.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import dbtaskqueue

ROOT = Path(dbtaskqueue.__file__).parent


class Mutant(NamedTuple):
    """One fault: in ``file`` (below the package), ``old`` becomes ``new``. ``tests`` should notice it.

    List the fastest tests that do: single tests, if the rest of their file takes more than a few seconds. ``only``
    is pytest's ``-k``: the engine whose SQL is broken, or the part of the tests that should notice.
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


def _tests(directory: str, *names: str) -> tuple[str, ...]:
    """Return arguments for pytest: ``file`` is all of ``directory/test_file.py``, ``file::test_one`` a test of it."""
    parts = [name.partition("::") for name in names]
    return tuple(f"tests/{directory}/test_{file}.py{colons}{test}" for file, colons, test in parts)


_conformance = partial(_tests, "conformance")
_unit = partial(_tests, "unit")
_alive = partial(_tests, "processes/alive")
_outages = partial(_tests, "processes/outages")


COMMON, TASKS, CLAIMS, WORKERS, QUEUES, LISTING, SQLITE, POSTGRESQL, MARIADB = (
    f"_store/sql/{name}.sql"
    for name in ("common", "tasks", "claims", "workers", "queues", "listing", "sqlite", "postgresql", "mariadb")
)
LOOP, HELD, OUTBOX, OUTCOMES = "_worker/loop.py", "_worker/held.py", "_worker/outbox.py", "outcomes.py"
CHECKPOINTS, RETRY = "checkpoints.py", "retry.py"
RESCUER, LIMITS, CANCEL_WATCH = (f"_maintenance/{name}.py" for name in ("rescuer", "limit_watch", "cancel_watch"))
SQLITE_CONNECTIONS = "_store/sqlite/connections.py"
PLACE = "_system/place.py"

MUTANTS = [
    # -- liveness --
    Mutant(
        "a worker is marked lost whatever its beat",
        WORKERS,
        "WHERE id = :worker AND beat = :beat AND lost_at IS NULL",
        "WHERE id = :worker AND lost_at IS NULL",
        _conformance("guards"),
    ),
    Mutant(
        "a lost worker is marked lost again",
        WORKERS,
        "AND beat = :beat AND lost_at IS NULL",
        "AND beat = :beat",
        _conformance("guards"),
    ),
    Mutant(
        "a heartbeat of a lost worker counts",
        WORKERS,
        "SET beat = beat + 1 WHERE id = :worker AND lost_at IS NULL",
        "SET beat = beat + 1 WHERE id = :worker",
        _conformance("guards"),
    ),
    Mutant("a heartbeat does not count up", WORKERS, "SET beat = beat + 1", "SET beat = beat", _conformance("guards")),
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
        WORKERS,
        "WHERE alive.id = dbtaskqueue_task.worker AND alive.lost_at IS NULL)\n\n-- name: rescue_reserved",
        "WHERE alive.lost_at IS NULL)\n\n-- name: rescue_reserved",
        _conformance("guards::test_tasks_of_a_worker_without_a_row_are_returned_to_the_queue"),
    ),
    # -- tokens --
    Mutant(
        "a claim gives no new token (SQLite)",
        SQLITE,
        "SET state = :state, token = token + 1, worker = :worker",
        "SET state = :state, worker = :worker",
        _conformance("transitions::test_verbs_of_anyone"),
    ),
    Mutant(
        "a claim gives no new token (PostgreSQL)",
        POSTGRESQL,
        "            SET token = token + 1, worker = :worker",
        "            SET worker = :worker",
        _conformance("transitions::test_verbs_of_anyone"),
        "postgresql",
    ),
    Mutant(
        "a claim gives no new token (MariaDB)",
        MARIADB,
        "   SET token = token + 1, worker = :worker",
        "   SET worker = :worker",
        _conformance("transitions::test_verbs_of_anyone"),
        "mariadb",
    ),
    Mutant(
        "a start compares no token",
        COMMON,
        "-- Whether the claim with this token has reserved the task.\nid = :id AND token = :token AND",
        "-- Whether the claim with this token has reserved the task.\nid = :id AND",
        _conformance("transitions::TestHolderVerbs::test_by_a_late_holder"),
    ),
    Mutant(
        "a fail compares no token",
        COMMON,
        "-- name: is_running\nid = :id AND token = :token AND",
        "-- name: is_running\nid = :id AND",
        _conformance("transitions::TestHolderVerbs::test_by_a_late_holder"),
    ),
    Mutant(
        "a finish compares no token",
        COMMON,
        "id = :id AND token = :token AND (state",
        "id = :id AND (state",
        _conformance("transitions::TestHolderVerbs::test_by_a_late_holder"),
    ),
    Mutant(
        "a start compares no token (PostgreSQL)",
        POSTGRESQL,
        "id = :id AND token = :token AND CASE state WHEN 'reserved' THEN true ELSE",
        "id = :id AND CASE state WHEN 'reserved' THEN true ELSE",
        _conformance("transitions::TestHolderVerbs::test_by_a_late_holder"),
        "postgresql",
    ),
    Mutant(
        "a finish compares no token (PostgreSQL)",
        POSTGRESQL,
        "id = :id AND token = :token AND CASE state WHEN 'running' THEN true WHEN",
        "id = :id AND CASE state WHEN 'running' THEN true WHEN",
        _conformance("transitions::TestHolderVerbs::test_by_a_late_holder"),
        "postgresql",
    ),
    Mutant(
        "outcomes of a batch compare no token (SQLite)",
        SQLITE,
        "dbtaskqueue_task.id = ended.id AND dbtaskqueue_task.token = ended.token",
        "dbtaskqueue_task.id = ended.id",
        _conformance("guards"),
    ),
    Mutant(
        "outcomes of a batch compare no token (PostgreSQL)",
        POSTGRESQL,
        "WHERE task.id = ending.id AND task.token = ending.token",
        "WHERE task.id = ending.id",
        _conformance("guards"),
        "postgresql",
    ),
    Mutant(
        "outcomes of a batch compare no token (MariaDB)",
        MARIADB,
        "id IN ([[:id_n,]]) AND token = CASE id [[WHEN :id_n THEN :token_n]] END",
        "id IN ([[:id_n,]])",
        _conformance("guards"),
        "mariadb",
    ),
    Mutant(
        "a rescue of a reserved task gives no new token",
        WORKERS,
        "SET token = token + 1, worker = NULL,\n       isolated",
        "SET worker = NULL,\n       isolated",
        _conformance("guards::test_a_rescue_gives_a_new_token"),
    ),
    Mutant(
        "a rescue of a running task gives no new token",
        WORKERS,
        "SET token = token + 1, due = :due, due_set_at = :at, finished_at = :finished_at",
        "SET due = :due, due_set_at = :at, finished_at = :finished_at",
        _conformance("guards::test_a_rescue_gives_a_new_token"),
    ),
    Mutant(
        "a cancel leaves the token of a reserved task",
        TASKS,
        "token = CASE WHEN state = 'running' THEN token ELSE token + 1 END",
        "token = token",
        _conformance("transitions::test_verbs_of_anyone"),
    ),
    Mutant(
        "a purge leaves the token",
        TASKS,
        "SET token = token + 1, finished_at = :now, worker = NULL, state = 'abandoned'",
        "SET finished_at = :now, worker = NULL, state = 'abandoned'",
        _conformance("transitions::test_verbs_of_anyone"),
    ),
    Mutant(
        "a retry leaves the token",
        TASKS,
        "SET retry_token = token, token = token + 1, due",
        "SET retry_token = token, due",
        _conformance("transitions::test_verbs_of_anyone"),
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
        _conformance("transitions::TestHolderVerbs::test_by_the_holder"),
    ),
    Mutant(
        "a reserved task fails",
        COMMON,
        "-- name: is_running\nid = :id AND token = :token AND state = 'running'",
        "-- name: is_running\nid = :id AND token = :token AND state IN ('reserved', 'running')",
        _conformance("transitions::TestHolderVerbs::test_by_the_holder"),
    ),
    Mutant(
        "a task that was not started finishes",
        COMMON,
        "(state = 'running' OR state = 'reserved' AND batched = 1)",
        "(state = 'running' OR state = 'reserved')",
        _conformance("transitions::TestHolderVerbs::test_by_the_holder"),
    ),
    Mutant(
        "a done task is cancelled",
        TASKS,
        "id = :id AND (state IN ('pending', 'failed', 'reserved') OR state = 'running' AND :running = 1)",
        "id = :id",
        _conformance("transitions::test_verbs_of_anyone"),
    ),
    Mutant(
        "a pending task is retried",
        TASKS,
        "AND state IN ('failed', 'abandoned', 'cancelled', 'done')",
        "AND state IN ('failed', 'abandoned', 'cancelled', 'done', 'pending')",
        _conformance("transitions::test_verbs_of_anyone"),
    ),
    Mutant(
        "a running cancel ends the task at once",
        TASKS,
        "state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END",
        "state = 'cancelled'",
        _conformance("transitions::test_verbs_of_anyone"),
    ),
    Mutant(
        "a prune deletes what is not final",
        TASKS,
        "WHERE id {{in_ids}} AND state IN ('done', 'cancelled', 'abandoned') {{for_update}}",
        "WHERE id {{in_ids}} {{for_update}}",
        _conformance("guards"),
    ),
    Mutant(
        "a prune goes by the wrong side of the age",
        TASKS,
        "AND id > :after AND finished_at < :before",
        "AND id > :after AND finished_at > :before",
        _conformance("operators::test_prune_compares_the_time_at_which_a_task_ended"),
    ),
    Mutant(
        "a paused queue is fetched from (SQLite)",
        SQLITE,
        "dbtaskqueue_queue WHERE name = :queue AND paused = 1)\n           AND EXISTS",
        "dbtaskqueue_queue WHERE name = :queue AND paused = 2)\n           AND EXISTS",
        _conformance("operators::test_no_task_is_fetched_from_a_paused_queue"),
    ),
    Mutant(
        "a paused queue is fetched from (PostgreSQL)",
        POSTGRESQL,
        "dbtaskqueue_queue WHERE name = :queue AND paused = 1)\n          LIMIT",
        "dbtaskqueue_queue WHERE name = :queue AND paused = 2)\n          LIMIT",
        _conformance("operators::test_no_task_is_fetched_from_a_paused_queue"),
        "postgresql",
    ),
    # -- attempts --
    Mutant(
        "a start spends no attempt",
        CLAIMS,
        "SET attempt = attempt + 1, started_at = :at, batched = 0",
        "SET started_at = :at, batched = 0",
        _conformance("transitions::TestHolderVerbs::test_by_the_holder"),
    ),
    Mutant(
        "a release spends an attempt",
        CLAIMS,
        "CASE WHEN cancel_requested = 1 THEN attempt ELSE attempt - 1 END",
        "attempt",
        _conformance("transitions::TestHolderVerbs::test_by_the_holder"),
    ),
    Mutant(
        "a retry leaves the attempts spent",
        TASKS,
        "due_set_at = :now, retry_base = attempt,",
        "due_set_at = :now,",
        _conformance("retry::test_an_operators_retry_resets_the_delays"),
    ),
    Mutant(
        "a failure forgets that cancellation was requested",
        CLAIMS,
        "WHEN cancel_requested = 1 THEN 'cancelled' WHEN :final = 1",
        "WHEN :final = 1",
        _conformance("transitions::TestHolderVerbs::test_by_the_holder"),
    ),
    Mutant(
        "a release forgets that cancellation was requested",
        CLAIMS,
        "state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END",
        "state = 'pending'",
        _conformance("transitions::TestHolderVerbs::test_by_the_holder"),
    ),
    Mutant(
        "one attempt more than allowed",
        "outcomes.py",
        "attempt >= task.max_attempts",
        "attempt > task.max_attempts",
        _conformance("transitions::test_a_failure_is_final_after_the_last_attempt_or_without_a_retry"),
    ),
    Mutant(
        "retry=False is ignored",
        "outcomes.py",
        "final = not retry or (",
        "final = (",
        _conformance("transitions::test_a_failure_is_final_after_the_last_attempt_or_without_a_retry"),
    ),
    Mutant(
        "the first lost attempt waits",
        "outcomes.py",
        "return now if lost_before == 0 else",
        "return now if lost_before < 0 else",
        _unit("outcomes"),
        "",
    ),
    Mutant(
        "every lost attempt is due at once",
        "outcomes.py",
        "return now if lost_before == 0 else",
        "return now if lost_before >= 0 else",
        _unit("outcomes"),
        "",
    ),
    Mutant(
        "lost attempts before a retry count",
        WORKERS,
        "past.token > dbtaskqueue_task.retry_token\n           AND past.outcome = 'lost'",
        "past.outcome = 'lost'",
        _conformance("retry::test_after_an_operators_retry_the_first_lost_attempt_is_due_immediately"),
    ),
    # -- due --
    Mutant(
        "a task is claimed before it is due (SQLite)",
        SQLITE,
        "AND task.due <= :now AND",
        "AND",
        _conformance("fetch::test_a_task_due_in_the_future_is_not_fetched"),
    ),
    Mutant(
        "a task is claimed before it is due (PostgreSQL)",
        POSTGRESQL,
        "                   AND due <= :now AND command",
        "                   AND command",
        _conformance("fetch::test_a_task_due_in_the_future_is_not_fetched_with_a_due_one"),
        "postgresql",
    ),
    Mutant(
        "a task is claimed before it is due (MariaDB)",
        MARIADB,
        "OR due > :first_due AND due <= :now)",
        "OR due > :first_due)",
        _conformance("fetch::test_a_task_due_in_the_future_is_not_fetched_with_a_due_one"),
        "mariadb",
    ),
    Mutant(
        "the clock set back delays what is due",
        TASKS,
        "AND due > :now AND due <= due_set_at",
        "AND due > :now AND due < 0",
        _conformance("clock::test_a_task_enqueued_before_the_clock_was_set_back"),
    ),
    Mutant(
        "the lowest priority comes first",
        "options.py",
        '-checked.get("priority", 0)',
        'checked.get("priority", 0)',
        _conformance("fetch::test_order_by_priority_then_due_time_then_id"),
    ),
    # -- values --
    Mutant(
        "an old token may store a checkpoint",
        CLAIMS,
        "SELECT id, :name, :value FROM {{schema}}dbtaskqueue_task WHERE {{is_started}} {{for_share}}",
        "SELECT id, :name, :value FROM {{schema}}dbtaskqueue_task WHERE id = :id {{for_share}}",
        _conformance("long_tasks::test_a_fenced_holder_stores_nothing"),
    ),
    Mutant(
        "an old token may store progress",
        CLAIMS,
        "SELECT id, token, :name, :value FROM {{schema}}dbtaskqueue_task WHERE {{is_started}}",
        "SELECT id, token, :name, :value FROM {{schema}}dbtaskqueue_task WHERE id = :id",
        _conformance("notes::test_a_note_with_an_old_token_is_refused"),
    ),
    Mutant(
        "NaN is stored",
        "_formats/payload.py",
        "    if kind is float:\n        return math.isfinite(value)\n    if depth",
        "    if kind is float:\n        return True\n    if depth",
        _unit("payload"),
        "",
    ),
    Mutant(
        "a payload may exceed the limit by a byte",
        "_formats/payload.py",
        "if size > limit:",
        "if size > limit + 1:",
        _unit("payload"),
        "",
    ),
    Mutant(
        "a key may be used twice",
        TASKS,
        'WHERE queue = :queue AND "key" = :key AND finished_at IS NULL',
        'WHERE queue = :queue AND "key" = :key AND finished_at IS NOT NULL',
        _conformance("keys"),
    ),
    Mutant(
        "a finished task keeps its key",
        TASKS,
        'WHERE queue = :queue AND "key" = :key AND finished_at IS NULL',
        'WHERE queue = :queue AND "key" = :key',
        _conformance("keys"),
    ),
    Mutant(
        "a retry takes a key that is taken",
        "_store/verbs/tasks.py",
        'if tx.row("key_is_taken", {"id": task}):',
        "if False:",
        _conformance("keys"),
    ),
    # -- extensions and backoff --
    Mutant(
        "an extension does not see the exception of the code",
        "_executors/runner.py",
        "with guard(run), self._attempt(run):\n            yield",
        "with guard(run):\n            with self._attempt(run):\n                pass\n            yield",
        _conformance("extensions::test_extensions_see_the_exception"),
        "process",
    ),
    Mutant(
        "a child that is replaced does not leave what its extensions entered",
        "_executors/process/children.py",
        "if child.is_dying or not self._leaves_process:",
        "if True:",
        _conformance("extensions::test_each_child_enters_and_leaves_the_process"),
        "",
    ),
    Mutant(
        "an extension's thread makes a child unclean",
        "_executors/process/child.py",
        "self._threads = threading.active_count()",
        "self._threads = 1",
        _conformance("extensions::test_each_child_enters_and_leaves_the_process"),
        "",
    ),
    Mutant(
        "backoff is asked although the task has chosen",
        "_executors/runner.py",
        "isinstance(error, _CHOICES) or ",
        "",
        _conformance("backoff::test_an_outcome_that_the_task_chose_wins"),
        "",
    ),
    Mutant(
        "a backoff that fails abandons the task",
        "outcomes.py",
        "    return True, None\n",
        "    return False, None\n",
        _conformance("backoff::test_without_an_answer_the_policy_applies"),
        "",
    ),
    # -- stopping --
    Mutant(
        "a drain waits for no task",
        LOOP,
        "deadline = time.monotonic() + self._settings.drain_timeout",
        "deadline = time.monotonic()",
        _conformance("worker::test_one_signal_drains"),
    ),
    Mutant(
        "a drain waits longer than its timeout",
        LOOP,
        "and not self.stop.is_immediate and time.monotonic() < deadline:",
        "and not self.stop.is_immediate:",
        _conformance("executors::test_a_task_that_outlasts_the_drain_is_released_without_spending_an_attempt"),
        "thread",
    ),
    Mutant(
        "a second signal is ignored",
        LOOP,
        "while self._active and not self.stop.is_immediate and",
        "while self._active and",
        _conformance("worker::test_a_second_signal_releases_tasks_immediately"),
    ),
    Mutant(
        "a task that a drain releases has failed",
        LOOP,
        "if run.worker_stops:",
        "if False:",
        _conformance("processes::test_a_drain_releases_the_task_with_its_checkpoint"),
    ),
    Mutant(
        "a task that a drain releases is not cancelled",
        LOOP,
        "            run.worker_stops = True\n            run.cancel()\n",
        "            run.worker_stops = True\n",
        _conformance("asyncio::test_a_coroutine_that_outlasts_the_drain_is_cancelled_and_spends_no_attempt"),
    ),
    Mutant(
        "what waits behind a long task is not released",
        LOOP,
        "            self._outbox.add(run, outcomes.release(run.record, None))\n\n    def _release_unknown",
        "            pass\n\n    def _release_unknown",
        _conformance(
            "worker::test_a_long_task_does_not_delay_a_short_one",
            "executors::test_a_long_task_in_a_batch_releases_the_tasks_behind_it",
        ),
    ),
    Mutant(
        "a task does not see that the worker drains",
        LOOP,
        "is_draining=lambda: self.stop.is_on",
        "is_draining=lambda: self.stop.is_immediate",
        _conformance("worker::test_a_task_sees_that_the_worker_drains"),
    ),
    Mutant(
        "a worker ends before what runs has ended (max_tasks)",
        LOOP,
        "if self._active or self._outbox or self._batch or self._finished:",
        "if self._outbox or self._batch or self._finished:",
        _conformance("executors::test_max_tasks", "executors::test_burst"),
    ),
    Mutant(
        "max_tasks is exceeded by a batch",
        LOOP,
        "limit if room is None else min(limit, room)",
        "limit",
        _conformance("executors::test_max_tasks"),
    ),
    # -- rescue --
    Mutant(
        "a worker elsewhere is lost as soon as it is seen twice",
        RESCUER,
        "return now - since >= worker.lease",
        "return True",
        _conformance("rescue::test_a_dead_worker_elsewhere_is_silent_for_a_lease_before_it_is_rescued"),
    ),
    Mutant(
        "a silent worker of the same place is lost although its process exists",
        RESCUER,
        "        if gone is not None:\n            return gone\n",
        "        if gone:\n            return gone\n",
        _conformance("rescue::test_in_the_same_place_the_process_decides_and_not_the_heartbeat"),
    ),
    Mutant(
        "a heartbeat does not end a silence",
        RESCUER,
        "if beat != worker.beat:",
        "if beat == -1:",
        _conformance("rescue::test_a_live_worker_elsewhere_keeps_its_tasks"),
    ),
    Mutant(
        "silence counts while the rescuer itself was stopped",
        RESCUER,
        "if now - self._last_check > 3 * self.interval:",
        "if False:",
        _conformance("rescue::test_silence_counts_only_while_the_rescuer_could_check"),
    ),
    Mutant(
        "silence counts across a failed check",
        RESCUER,
        "        except BaseException:\n            self._silent_since.clear()\n            raise\n",
        "",
        _conformance("rescue::test_silence_counts_only_while_the_rescuer_could_check"),
    ),
    Mutant(
        "pids of another namespace count",
        PLACE,
        "(process.boot, process.namespace) != (here.boot, here.namespace)",
        "process.boot != here.boot",
        _conformance("rescue::test_a_pid_is_only_compared_within_its_place"),
    ),
    Mutant(
        "pids of another machine count",
        PLACE,
        "(process.boot, process.namespace) != (here.boot, here.namespace)",
        "process.namespace != here.namespace",
        _conformance("rescue::test_a_pid_is_only_compared_within_its_place"),
    ),
    Mutant(
        "a hidden process counts as dead",
        PLACE,
        "return None if alive is None else not alive",
        "return not alive",
        _conformance("rescue::test_a_pid_is_only_compared_within_its_place"),
    ),
    Mutant(
        "a pid that was given to another process counts as the worker's",
        "_system/linux.py",
        "return found == pid and ticks_at_start == started and state",
        "return found == pid and state",
        _unit("system"),
        "",
    ),
    Mutant(
        "a killed worker of the same place keeps its tasks for a lease",
        RESCUER,
        "        if gone is not None:\n            return gone\n",
        "",
        _conformance("rescue::test_in_the_same_place_the_process_decides_and_not_the_heartbeat"),
    ),
    Mutant(
        "tasks of a worker without a row are not rescued",
        RESCUER,
        "if at_orphans or known - self._known:",
        "if False:",
        _conformance("guards::test_tasks_of_a_worker_without_a_row_are_returned_to_the_queue"),
    ),
    Mutant(
        "a worker does not notice that it was lost",
        "_worker/membership.py",
        "if not any(worker.id == self.id and worker.lost_at is None for worker in workers):",
        "if False:",
        _conformance("rescue::test_a_worker_whose_row_was_deleted_is_fenced_and_continues_as_a_new_one"),
    ),
    # -- retry --
    Mutant(
        "the delay rises linearly forever",
        RETRY,
        "* min(n, self.linear)",
        "* n",
        _unit("retry_policy"),
        "",
    ),
    Mutant(
        "the factor counts from the first retry",
        RETRY,
        "** (n - self.linear)",
        "** n",
        _unit("retry_policy"),
        "",
    ),
    Mutant(
        "a delay exceeds max_delay",
        RETRY,
        "return min(base, self.max_delay)",
        "return base",
        _unit("retry_policy"),
        "",
    ),
    Mutant(
        "jitter only lengthens",
        RETRY,
        "random.uniform(1 - self.jitter, 1 + self.jitter)",
        "random.uniform(1, 1 + self.jitter)",
        _unit("retry_policy"),
        "",
    ),
    Mutant(
        "jitter only shortens",
        RETRY,
        "random.uniform(1 - self.jitter, 1 + self.jitter)",
        "random.uniform(1 - self.jitter, 1)",
        _unit("retry_policy"),
        "",
    ),
    Mutant(
        "a policy of a newer version is replaced by the default",
        "_formats/task_options.py",
        "for name in RetryPolicy.__dataclass_fields__ if name in stored}",
        "for name in stored}",
        _unit("task_options"),
        "",
    ),
    Mutant(
        "delays do not start again after an operator's retry",
        "outcomes.py",
        "options.retry.delay_before(max(1, attempt - task.retry_base))",
        "options.retry.delay_before(max(1, attempt))",
        _unit("outcomes"),
        "",
    ),
    Mutant(
        "an attempt whose start is not stored yet does not count",
        "outcomes.py",
        "attempt = task.attempt + (started_at is not None)",
        "attempt = task.attempt",
        _unit("outcomes"),
        "",
    ),
    # -- lost answers --
    Mutant(
        "an outcome that was stored the first time is refused",
        HELD,
        "        verdict = settle(verdict)\n",
        "",
        _conformance("lost_answers::test_an_end_in_doubt_is_retried_automatically"),
    ),
    Mutant(
        "an outcome in doubt counts as stored under another token",
        OUTCOMES,
        "    if verdict.token == end.token:\n",
        "    if True:\n",
        _conformance("lost_answers::test_an_end_in_doubt_was_not_stored_if_the_task_has_ended_otherwise"),
    ),
    Mutant(
        "an outcome in doubt counts as stored in any state",
        OUTCOMES,
        "stored=verdict.state in INTENDED[end.verb]",
        "stored=True",
        _conformance("lost_answers::test_an_end_in_doubt_was_not_stored_if_the_task_has_ended_otherwise"),
    ),
    Mutant(
        "what may have been stored is not asked for again",
        HELD,
        "if self._in_doubt.get(claim) != verb:\n                    raise",
        "if True:\n                    raise",
        _conformance("lost_answers::test_an_end_in_doubt_is_retried_automatically"),
    ),
    Mutant(
        "a doubt is forgotten while the database is unavailable",
        HELD,
        "raise StoreUnavailable(str(error), maybe_done=True) from error",
        "raise",
        _conformance("lost_answers::test_an_end_stays_in_doubt_while_the_database_is_unavailable"),
    ),
    Mutant(
        "a doubt about one verb settles another",
        HELD,
        "        if self._in_doubt.get(claim) != verb:\n            return verdict",
        "        if claim not in self._in_doubt:\n            return verdict",
        _conformance("lost_answers::test_a_verb_other_than_the_one_in_doubt_raises_the_true_state"),
    ),
    Mutant(
        "a cancelled task does not count as a stored failure",
        OUTCOMES,
        '"fail": frozenset({FAILED, ABANDONED, CANCELLED}),',
        '"fail": frozenset({FAILED, ABANDONED}),',
        _conformance("lost_answers::test_an_end_in_doubt_of_a_task_with_a_cancellation_request"),
    ),
    Mutant(
        "a cancelled task does not count as a stored release",
        OUTCOMES,
        '"release": frozenset({PENDING, CANCELLED}),',
        '"release": frozenset({PENDING}),',
        _conformance("lost_answers::test_an_end_in_doubt_of_a_task_with_a_cancellation_request"),
    ),
    Mutant(
        "a worker does not check for a claim whose answer was lost",
        "_worker/lost_claims.py",
        "self._due = [now + after for after in CHECKS]",
        "self._due = []",
        _conformance("lost_answers::test_a_worker_releases_a_claim_that_arrives_late"),
    ),
    Mutant(
        "a worker checks once for a claim whose answer was lost",
        "_worker/lost_claims.py",
        "self._due = [now + after for after in CHECKS]",
        "self._due = [now]",
        _conformance("lost_answers::test_a_worker_releases_a_claim_that_arrives_late"),
    ),
    Mutant(
        "a worker releases what it runs when it checks for a lost claim",
        "_worker/lost_claims.py",
        "for held in self._held() if (held.id, held.token) not in known]",
        "for held in self._held()]",
        _conformance("lost_answers::test_a_worker_releases_a_claim_that_arrives_late"),
    ),
    Mutant(
        "a handle releases what it holds when it checks for a lost claim",
        HELD,
        "LostClaims(self.held, self._known_claims, self.release)",
        "LostClaims(self.held, set, self.release)",
        _conformance("lost_answers::test_the_later_release_leaves_newer_claims_alone"),
    ),
    Mutant(
        "a handle does not release a claim whose answer was lost",
        HELD,
        "if not isinstance(error, StoreUnavailable) or error.maybe_done:",
        "if not isinstance(error, StoreUnavailable):",
        _conformance("lost_answers::test_a_claim_is_released_later_if_its_answer_and_its_release_are_lost"),
    ),
    # -- on_error --
    Mutant(
        "on_error is not called where the answer was lost",
        OUTCOMES,
        "        return verdict._replace(stored=verdict.state in INTENDED[end.verb])",
        "        return verdict",
        _conformance("lost_answers::test_on_error_is_called_once_if_the_answer_to_a_failure_was_lost"),
    ),
    Mutant(
        "on_error is called for an outcome that was not stored",
        OUTBOX,
        "        if not verdict.stored:\n            self._events",
        "        if False:\n            self._events",
        _conformance("lost_answers::test_on_error_is_not_called_for_an_end_that_was_never_stored"),
    ),
    Mutant(
        "on_error is called for a cancelled task",
        "worker.py",
        "if fact.error is None or fact.state not in (FAILED, ABANDONED):",
        "if fact.error is None:",
        _conformance("worker::test_how_a_task_ends"),
    ),
    Mutant(
        "on_error is not called where the task cannot be read",
        "worker.py",
        "        with contextlib.suppress(StoreUnavailable):  # then",
        "        with contextlib.nullcontext():  # then",
        _conformance("lost_answers::test_on_error_is_called_if_the_task_cannot_be_read"),
    ),
    # -- limits --
    Mutant(
        "a time limit is not enforced",
        LIMITS,
        "if limits.time is not None and",
        "if False and",
        _unit("limit_watch"),
        "",
    ),
    Mutant(
        "progress does not reset a stall limit",
        LIMITS,
        "now - max(self._reported_at, run.started) > limits.stall",
        "now - run.started > limits.stall",
        _unit("limit_watch"),
        "",
    ),
    Mutant(
        "a memory limit is not enforced",
        LIMITS,
        "if memory > limits.memory:",
        "if memory > 10 * limits.memory:",
        _conformance("processes::test_a_task_that_exceeds_a_limit_fails"),
    ),
    Mutant(
        "the time that a task is suspended counts",
        "_executors/task_run.py",
        "return now - self._suspended_for",
        "return now",
        _unit("limit_watch"),
        "",
    ),
    Mutant(
        "the limits of a task count while it is suspended",
        "_executors/task_run.py",
        "now = time.monotonic() if self._suspended_since is None else self._suspended_since",
        "now = time.monotonic()",
        _unit("limit_watch"),
        "",
    ),
    # -- cancellation --
    Mutant(
        "a running task does not notice its cancellation",
        CANCEL_WATCH,
        "if row is None or row.cancel_requested:",
        "if row is None:",
        _unit("cancel_watch"),
        "",
    ),
    Mutant(
        "a task whose claim is gone keeps running",
        CANCEL_WATCH,
        "if row is None or row.cancel_requested:",
        "if row is None:\n                continue\n            if row.cancel_requested:",
        _unit("cancel_watch"),
        "",
    ),
    Mutant(
        "another claim on the same task counts as its own",
        CANCEL_WATCH,
        "held = {(row.id, row.token): row for row in self._held()}\n"
        "        for run in runs & set(self._running()):  # a task that has ended meanwhile is no longer held\n"
        "            row = held.get((run.record.id, run.record.token))",
        "held = {row.id: row for row in self._held()}\n"
        "        for run in runs & set(self._running()):  # a task that has ended meanwhile is no longer held\n"
        "            row = held.get(run.record.id)",
        _unit("cancel_watch"),
        "",
    ),
    # -- heartbeats and the clock --
    Mutant(
        "a heartbeat process that died is not started again",
        "_maintenance/heartbeat.py",
        "exit_code=code)\n            self._process = self._spawn()",
        "exit_code=code)",
        _alive("heartbeat_process::test_a_heartbeat_process_that_dies_is_started_again"),
    ),
    Mutant(
        "a heartbeat process outlives its worker",
        "_maintenance/heartbeat_process.py",
        'while os.getppid() == orders["parent"]:',
        "while True:",
        _alive("heartbeat_process::test_the_heartbeat_process_ends_although_a_child_inherited_its_pipe"),
    ),
    Mutant(
        "a worker sends less than one heartbeat a lease",
        "_maintenance/heartbeat.py",
        "BEATS_PER_LEASE = 3.0",
        "BEATS_PER_LEASE = 0.3",
        _conformance("rescue::test_workers_without_a_place_do_not_rescue_each_others_tasks"),
    ),
    Mutant(
        "a clock that is set back while the process lives is not noticed",
        "_maintenance/clock_watch.py",
        "jumped = self._measure() <= self._offset - _TOLERANCE",
        "jumped = False",
        _conformance("clock::test_a_clock_that_is_set_back_is_noticed_at_the_next_check"),
    ),
    Mutant(
        "a task from before the clock was set back is not noticed",
        "_maintenance/clock_watch.py",
        "if not ahead and self._offset > offset - _TOLERANCE:",
        "if self._offset > offset - _TOLERANCE:",
        _conformance("clock::test_a_handle_opened_after_the_clock_was_set_back"),
    ),
    # -- leaving --
    Mutant(
        "a close keeps what is reserved",
        HELD,
        "for task, (token, runs) in self._holds.items() if not runs]",
        "for task, (token, runs) in self._holds.items() if not runs and False]",
        _conformance("fetch::test_close_releases_reserved_tasks_and_keeps_running_ones"),
    ),
    Mutant(
        "a close releases what runs",
        HELD,
        "for task, (token, runs) in self._holds.items() if not runs]",
        "for task, (token, runs) in self._holds.items()]",
        _conformance("fetch::test_close_releases_reserved_tasks_and_keeps_running_ones"),
    ),
    Mutant(
        "a handle leaves while a task that it holds runs",
        HELD,
        "if not self._leaving or self._holds:",
        "if not self._leaving:",
        _conformance("leaving::test_a_closed_queue_keeps_its_row_while_something_runs"),
    ),
    Mutant(
        "a child takes over the claims of its parent",
        "_worker/membership.py",
        "            self._heartbeat.disown()\n        self._reset()\n",
        "            self._heartbeat.disown()\n        self.pid = os.getpid()\n",
        _conformance("fork::test_a_child_that_exits_normally_releases_nothing_of_its_parent"),
    ),
    # -- passwords --
    Mutant(
        "the password of a URL is shown",
        "_formats/url.py",
        r'return _USER_INFO.sub(r"\1\2:***@", _SECRET.sub(r"\1***", url))',
        r'return _SECRET.sub(r"\1***", url)',
        _unit("url"),
        "",
    ),
    Mutant(
        "the password of a DSN is shown",
        "_formats/url.py",
        r'return _USER_INFO.sub(r"\1\2:***@", _SECRET.sub(r"\1***", url))',
        r'return _USER_INFO.sub(r"\1\2:***@", url)',
        _unit("url"),
        "",
    ),
    Mutant(
        "a password is shown from its first @ on",
        "_formats/url.py",
        "([^:]*):.*@",
        "([^:]*):[^@]*@",
        _unit("url"),
        "",
    ),
    Mutant(
        "the URL in messages is not masked", "_formats/url.py", "shown = mask(url)", "shown = url", _unit("url"), ""
    ),
    # -- invalid input --
    Mutant(
        "a payload may be one level too deep",
        "_formats/payload.py",
        "MAX_DEPTH = 100",
        "MAX_DEPTH = 101",
        _conformance("bad_input::test_a_bad_payload_is_refused_and_nothing_stored"),
    ),
    Mutant(
        "an integer may exceed 64 bits by one",
        "_formats/payload.py",
        "MAX_INTEGER = 2**63 - 1",
        "MAX_INTEGER = 2**63",
        _conformance("bad_input::test_a_bad_payload_is_refused_and_nothing_stored"),
    ),
    Mutant(
        "U+0000 is stored",
        "_formats/payload.py",
        r'if text is None or "\\u0000" in text or not',
        "if text is None or not",
        _conformance("bad_input::test_a_bad_payload_is_refused_and_nothing_stored"),
    ),
    Mutant(
        "a lone surrogate is stored",
        "_formats/payload.py",
        "or not (text.isascii() or not _SURROGATE.search(text)):",
        "or False:",
        _conformance("bad_input::test_a_bad_payload_is_refused_and_nothing_stored"),
    ),
    Mutant(
        "a key may be empty",
        "checks.py",
        "not 1 <= len(key) <= _MAX_KEY",
        "len(key) > _MAX_KEY",
        _unit("name_patterns"),
        "",
    ),
    Mutant("a key may be too long", "checks.py", "_MAX_KEY = 255", "_MAX_KEY = 256", _unit("name_patterns"), ""),
    Mutant(
        "a queue's name may contain any character after a valid start",
        "checks.py",
        "_NAME.fullmatch(name)",
        "_NAME.match(name)",
        _unit("name_patterns"),
        "",
    ),
    Mutant(
        "an abandoned task is not final",
        "states.py",
        "FINAL = frozenset({DONE, CANCELLED, ABANDONED})",
        "FINAL = frozenset({DONE, CANCELLED})",
        _unit("states"),
        "",
    ),
    Mutant(
        "the table does not allow to retry a done task",
        "states.py",
        '"failed abandoned cancelled done", "pending"',
        '"failed abandoned cancelled", "pending"',
        _unit("states"),
        "",
    ),
    Mutant(
        "tasks with the same id in two databases are equal",
        "task.py",
        "return self.id == other.id and _database(self._store.url) == _database(other._store.url)",
        "return self.id == other.id",
        _unit("public::test_tasks_are_equal_by_id_and_database"),
        "",
    ),
    Mutant(
        "a wait for a task that does not exist never ends",
        "waiting.py",
        "found[task].state if task in found else None for task in tasks}",
        "found[task].state for task in tasks if task in found}",
        _conformance("waiting::test_a_callback_gets_the_final_state_once"),
    ),
    # -- checkpoints, steps and transactions --
    Mutant(
        "a checkpoint of a claim that is gone seems to be stored",
        CHECKPOINTS,
        'raise LeaseLost(f"the claim on task {self._record.id} was lost; nothing was stored")',
        "return",
        _conformance("long_tasks::test_a_fenced_holder_stores_nothing"),
    ),
    Mutant(
        "a transaction does not check the claim",
        "_store/verbs/claims.py",
        "if not is_held:",
        "if False:",
        _conformance("long_tasks::test_a_lost_claim_rolls_back_the_transaction"),
    ),
    Mutant(
        "a transaction that its block ended counts as the outcome of the task",
        "_store/verbs/claims.py",
        "if not tx.is_open:",
        "if False:",
        _conformance("long_tasks::test_a_transaction_that_the_block_ends_itself"),
    ),
    Mutant(
        "a step is run again by the next attempt",
        "current.py",
        "stored = self._all_saved().get(STEP + name)",
        "stored = None",
        _conformance("long_tasks::test_a_step_is_run_once_over_all_attempts"),
    ),
    Mutant(
        "a step's name may be used twice",
        "current.py",
        "        self._steps.add(name)\n",
        "",
        _conformance("long_tasks::test_a_name_used_twice_is_an_error"),
    ),
    Mutant(
        "a checkpoint does not wait for an unavailable database",
        CHECKPOINTS,
        "                if self._is_over():\n                    raise\n",
        "                raise\n",
        _conformance("long_tasks::test_a_checkpoint_waits_for_an_unavailable_database"),
    ),
    Mutant(
        "a transaction whose answer was lost has failed",
        CHECKPOINTS,
        "if not error.maybe_done or not self._patiently(lambda: self._is_stored(ends[-1])):",
        "if True:",
        _conformance("long_tasks::test_a_transaction_whose_answer_was_lost_is_checked"),
    ),
    Mutant(
        "a transaction whose answer was lost is always done",
        CHECKPOINTS,
        "if not error.maybe_done or not self._patiently(lambda: self._is_stored(ends[-1])):",
        "if not error.maybe_done:",
        _conformance("long_tasks::test_a_transaction_whose_answer_was_lost_is_checked"),
    ),
    # -- a user's own transaction --
    *(
        Mutant(
            f"a connection in autocommit is borrowed ({name})",
            f"_store/{name.lower()}/connections.py",
            old,
            "if False:",
            _conformance("own_transaction::test_a_connection_in_autocommit"),
            name.lower(),
        )
        for name, old in {
            "SQLite": "if commits_itself:",
            "PostgreSQL": "if connection.autocommit and idle:",
            "MariaDB": "if connection.get_autocommit() and not started:",
        }.items()
    ),
    # -- SQLite --
    Mutant(
        "a write starts without the lock (SQLite)",
        SQLITE_CONNECTIONS,
        'else:\n                _wait_for_lock(connection.execute, "BEGIN IMMEDIATE")',
        'else:\n                _wait_for_lock(connection.execute, "BEGIN")',
        _conformance("threads::test_two_handles_in_many_threads"),
    ),
    Mutant(
        "a commit is not flushed unless asked (SQLite)",
        SQLITE_CONNECTIONS,
        'target.options.get("synchronous", "FULL")',
        'target.options.get("synchronous", "NORMAL")',
        _conformance("files::test_how_durable_a_commit_is"),
    ),
    Mutant(
        "synchronous=FULL flushes like NORMAL (SQLite)",
        SQLITE_CONNECTIONS,
        '"FULL": "PRAGMA synchronous = FULL"',
        '"FULL": "PRAGMA synchronous = NORMAL"',
        _conformance("files::test_how_durable_a_commit_is"),
    ),
    Mutant(
        "no write-ahead log (SQLite)",
        SQLITE_CONNECTIONS,
        '"PRAGMA journal_mode = WAL"',
        '"PRAGMA journal_mode = DELETE"',
        _conformance("files::test_how_durable_a_commit_is"),
    ),
    Mutant(
        "connections cross a fork (SQLite)",
        SQLITE_CONNECTIONS,
        "        super().before_fork()\n        self._disconnect()\n",
        "        super().before_fork()\n",
        _conformance("fork"),
    ),
    Mutant(
        "a file that was deleted or replaced is written to (SQLite)",
        SQLITE_CONNECTIONS,
        "if identity(self.path) != self._file:",
        "if False:",
        _conformance("files::test_a_file_that_is_deleted_or_replaced_is_noticed"),
    ),
    *(
        Mutant(
            f"a disk error leaves no doubt about {what} (SQLite)",
            SQLITE_CONNECTIONS,
            "doubtful = (committing or alone) and",
            f"doubtful = {left} and",
            _conformance("files::test_after_a_disk_error_at_a_commit_the_write_may_be_stored"),
        )
        for what, left in {"a single statement": "committing", "a transaction": "alone"}.items()
    ),
    Mutant(
        "a disk error leaves no doubt about a task's own transaction (SQLite)",
        SQLITE_CONNECTIONS,
        'maybe_done=_code(error).startswith("SQLITE_IOERR")',
        "maybe_done=False",
        _conformance("files::test_after_a_disk_error_at_a_commit_the_write_may_be_stored"),
    ),
    Mutant(
        "a user's transaction starts without the lock (SQLite)",
        SQLITE_CONNECTIONS,
        'cursor.execute("BEGIN IMMEDIATE")',
        'cursor.execute("BEGIN")',
        _conformance("own_transaction::test_a_transaction_that_enqueue_starts_has_the_write_lock"),
    ),
    # -- servers --
    Mutant(
        "a lost commit leaves no doubt about a task's own transaction",
        "_store/server.py",
        "maybe_done=self._trouble(error) is ErrorKind.LOST",
        "maybe_done=False",
        _outages("lost_connections::test_a_transaction_reports_whether_it_may_be_stored"),
        "postgresql",
    ),
    *(
        Mutant(
            f"a child closes the sessions of its parent ({name})",
            "_store/server.py",
            "                link.disown()",
            "                link.close()",
            _conformance("fork::test_the_parents_sessions_survive_every_end_of_a_child"),
            name,
        )
        for name in ("postgresql", "mariadb")
    ),
    *(
        Mutant(
            f"a lost commit leaves no doubt ({name})",
            "_store/server.py",
            "maybe_done=committing and trouble is ErrorKind.LOST",
            "maybe_done=False",
            _outages("lost_connections::test_enqueue_reports_whether_the_task_may_exist"),
            name,
        )
        for name in ("postgresql", "mariadb")
    ),
    Mutant(
        "a connection lost before the commit leaves a doubt",
        "_store/server.py",
        "maybe_done=committing and trouble is ErrorKind.LOST",
        "maybe_done=trouble is ErrorKind.LOST",
        _outages("lost_connections::test_enqueue_reports_whether_the_task_may_exist"),
        "postgresql",
    ),
    Mutant(
        "a claim does not wait for a transaction that marks its worker lost (PostgreSQL)",
        POSTGRESQL,
        "AND lost_at IS NULL FOR SHARE)",
        "AND lost_at IS NULL)",
        _conformance("guards::test_a_claim_waits_for_the_transaction_that_marks_its_worker_lost"),
        "postgresql",
    ),
    Mutant(
        "a claim does not wait for a transaction that marks its worker lost (MariaDB)",
        MARIADB,
        "AND lost_at IS NULL LOCK IN SHARE MODE",
        "AND lost_at IS NULL",
        _conformance("guards::test_a_claim_waits_for_the_transaction_that_marks_its_worker_lost"),
        "mariadb",
    ),
    Mutant(
        "a claim waits for the claims of others (PostgreSQL)",
        POSTGRESQL,
        "ORDER BY due, id LIMIT :limit FOR UPDATE SKIP LOCKED) AS task",
        "ORDER BY due, id LIMIT :limit FOR UPDATE) AS task",
        _conformance("guards::test_a_claim_skips_a_task_that_another_worker_is_claiming"),
        "postgresql",
    ),
    Mutant(
        "a claim waits for the claims of others (MariaDB)",
        MARIADB,
        "ORDER BY due, id LIMIT :limit FOR UPDATE SKIP LOCKED",
        "ORDER BY due, id LIMIT :limit FOR UPDATE",
        _conformance("guards::test_a_claim_skips_a_task_that_another_worker_is_claiming"),
        "mariadb",
    ),
    Mutant(
        "a deadlock is not retried",
        "_store/server.py",
        "return trouble is ErrorKind.RETRY",
        "return False",
        _conformance("guards::test_a_transaction_is_retried_after_a_deadlock"),
        "postgresql",
    ),
    Mutant(
        "a deadlock is not retried (MariaDB)",
        "_store/mariadb/connections.py",
        "_AGAIN = {1020, 1205, 1213, 1412}",
        "_AGAIN = {1020, 1205, 1412}",
        _conformance("guards::test_a_transaction_is_retried_after_a_deadlock"),
        "mariadb",
    ),
    Mutant(
        "writes see an old snapshot and lock gaps (MariaDB)",
        MARIADB,
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE",
        _conformance("guards::test_an_enqueue_does_not_wait_for_a_claim"),
        "mariadb",
    ),
    Mutant(
        "a cluster repeats an insert by itself (MariaDB)",
        MARIADB,
        "SET SESSION wsrep_retry_autocommit = 0",
        "SET SESSION wsrep_retry_autocommit = 1",
        _outages("failover::test_writers_on_two_galera_nodes_get_the_ids_of_stored_tasks"),
        "",
    ),
    # -- tasks that a worker has no code for --
    Mutant(
        "a task without code is run",
        LOOP,
        "if self._lookup.has(record):",
        "if True:",
        _conformance("functions::test_a_task_with_an_unknown_function_is_released_without_spending_an_attempt"),
    ),
    Mutant(
        "a task without code leaves an attempt",
        "_store/verbs/claims.py",
        "if not (end.unrun and state == PENDING):",
        "if True:",
        _conformance("functions::test_a_task_with_an_unknown_function_is_released_without_spending_an_attempt"),
    ),
    Mutant(
        "the delay of a task without code does not end at five minutes",
        OUTCOMES,
        "return release(task, doubling(claims - 1, *UNKNOWN_DELAYS))",
        "return release(task, doubling(claims - 1, UNKNOWN_DELAYS[0], 1e9))",
        _conformance("functions::test_the_delay_of_a_task_with_an_unknown_function_doubles_up_to_five_minutes"),
    ),
    Mutant(
        "the delay of a task without code does not start again after an operator's retry",
        "outcomes.py",
        "claims = task.token - task.retry_token - (task.retry_token > 0)",
        "claims = task.token",
        _conformance("functions::test_the_delay_of_a_task_with_an_unknown_function_doubles_up_to_five_minutes"),
    ),
    Mutant(
        "each task without code is logged",
        LOOP,
        "if self._throttle.lets(record.function):",
        "if True:",
        _conformance("functions::test_one_warning_a_minute_names_a_bounded_list_of_functions"),
    ),
    Mutant(
        "a worker starts although it has no code to run",
        "worker.py",
        "elif not self._queue.functions.names() and not self.allow_commands:",
        "elif False:",
        _conformance("functions::test_a_worker_without_anything_to_run_is_refused"),
    ),
    # -- delays --
    Mutant(
        "a delay exceeds the largest date",
        "_system/clock.py",
        "return min(start + round(seconds * 1_000_000), LATEST) if",
        "return start + round(seconds * 1_000_000) if",
        _unit("clock"),
        "",
    ),
    # -- wake-ups on PostgreSQL --
    Mutant(
        "a busy worker counts as waiting (PostgreSQL)",
        "_store/postgresql/wakeups.py",
        "        if isinstance(ticket, _Ticket) and self._count(-1) == 0 and self._rows:\n",
        "        if False:\n",
        _conformance("servers::test_a_busy_worker_does_not_count_as_waiting"),
        "postgresql",
    ),
    Mutant(
        "the waiter of a dead session counts (PostgreSQL)",
        POSTGRESQL,
        "THEN NOT pg_advisory_unlock(hashtextextended(channel, 0))",
        "THEN pg_advisory_unlock(hashtextextended(channel, 0))",
        _conformance("servers::test_the_waiter_of_a_dead_session_does_not_take_a_notification"),
        "postgresql",
    ),
    Mutant(
        "a task that becomes due wakes the workers of all queues (PostgreSQL)",
        POSTGRESQL,
        "WHERE queue = due.queue AND {{is_waiting}}",
        "WHERE {{is_waiting}}",
        _conformance("servers::test_a_task_that_is_due_again_wakes_only_its_own_queue"),
        "postgresql",
    ),
    # -- what the command line shows --
    Mutant(
        "a worker logs the password of its database",
        "cli/working.py",
        "database=mask(worker.url)",
        "database=worker.url",
        _conformance("servers::test_the_log_of_a_worker_shows_no_password"),
        "postgresql",
    ),
    Mutant(
        "Ctrl-C interrupts the demo at any moment",
        "_system/signals.py",
        "arrived = True",
        "raise KeyboardInterrupt",
        ("tests/cli/test_demo.py::test_a_demo_can_be_interrupted_at_an_inconvenient_moment",),
        "inconvenient",
    ),
    Mutant(
        "a notification just before a wait is missed (PostgreSQL)",
        "_store/postgresql/wakeups.py",
        "if ticket.rings == self._rings and all(",
        "if all(",
        ("tests/conformance/test_fetch.py::test_a_wake_up_between_the_ticket_and_the_wait_is_not_missed",),
        "postgresql",
    ),
]
