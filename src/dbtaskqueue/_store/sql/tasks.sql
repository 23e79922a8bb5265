-- The facet Tasks: what producers and operators do.

-- name: insert_task
INSERT INTO {{schema}}dbtaskqueue_task ({{new_task_columns}}) VALUES ({{new_task_values}}) RETURNING id

-- name: set_new
UPDATE {{schema}}dbtaskqueue_task SET expires = :expires, flow = :flow, blocked = :blocked WHERE id {{in_ids}}

-- name: new_state
'pending'

-- name: new_due_set_at
:created_at

-- name: insert_large
-- The row may exist already: a finish whose answer was lost is stored again.
INSERT INTO {{schema}}dbtaskqueue_large (task, name, value) VALUES (:task, :name, :value)
    ON CONFLICT (task, name) DO NOTHING

-- name: unfinished_with_key
SELECT id FROM {{schema}}dbtaskqueue_task
 WHERE queue = :queue AND "key" = :key AND finished_at IS NULL

-- name: get
SELECT {{task_columns}} FROM {{schema}}dbtaskqueue_task WHERE id = :id

-- name: standing
SELECT state, token, flow FROM {{schema}}dbtaskqueue_task WHERE id = :id

-- name: standings
SELECT id, state, token FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}}

-- name: cancel
UPDATE {{schema}}dbtaskqueue_task
   SET cancel_requested = CASE WHEN state = 'running' THEN 1 ELSE cancel_requested END,
       token = CASE WHEN state = 'running' THEN token ELSE token + 1 END,
       finished_at = CASE WHEN state = 'running' THEN finished_at ELSE :now END,
       worker = CASE WHEN state = 'running' THEN worker END,
       state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END
 WHERE id = :id
   AND (state IN ('pending', 'failed', 'reserved') OR state = 'running' AND :running = 1 AND cancel_requested = 0)

-- name: suspendable
-- Only processes can be suspended.
SELECT 1 FROM {{schema}}dbtaskqueue_task
 WHERE id = :id AND state = 'running'
   AND EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_worker AS alive
                WHERE alive.id = dbtaskqueue_task.worker AND alive.lost_at IS NULL AND alive.executor = 'process')
{{for_update}}

-- name: suspend
UPDATE {{schema}}dbtaskqueue_task SET suspended = CASE WHEN :suspended = 1 THEN token END WHERE id = :id

-- name: key_is_taken
SELECT 1 FROM {{schema}}dbtaskqueue_task AS other
 WHERE other.queue = (SELECT queue FROM {{schema}}dbtaskqueue_task WHERE id = :id)
   AND other."key" = (SELECT "key" FROM {{schema}}dbtaskqueue_task WHERE id = :id)
   AND other.finished_at IS NULL AND other.id <> :id

-- name: insert_done_attempt
-- The done attempt is in the task's row. It is copied to the attempts before a retry overwrites it.
INSERT INTO {{schema}}dbtaskqueue_attempt ({{stored_attempt_columns}})
SELECT {{stored_attempt_columns}} FROM ({{attempt_in_row}}) AS present WHERE outcome = 'done'

-- name: retry
UPDATE {{schema}}dbtaskqueue_task
   SET retry_token = token, token = token + 1, due = :due, due_set_at = :now, retry_base = attempt,
       finished_at = NULL, result = NULL, cpu = NULL, memory = NULL, worker = NULL, cancel_requested = 0,
       expires = NULL, reason = NULL, state = 'pending'
 WHERE id = :id AND state IN ('failed', 'abandoned', 'cancelled', 'done')

-- name: delete_results
-- The result, the checkpoint and the results of steps.
DELETE FROM {{schema}}dbtaskqueue_large WHERE task = :id AND name <> 'payload'

-- name: highest_id
SELECT coalesce(max(id), 0) FROM {{schema}}dbtaskqueue_task

-- name: purgeable_held
SELECT id, token, state, attempt, worker, started_at, function, command, due, created_at
  FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE {{is_held}} AND queue = :queue AND id <= :highest ORDER BY id {{for_update}}

-- name: purgeable
-- Unordered: for each step, a sort would read and lock all waiting tasks.
SELECT id FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}} AND id <= :highest
 LIMIT :limit {{for_update}}

-- name: purge
UPDATE {{schema}}dbtaskqueue_task SET token = token + 1, finished_at = :now, worker = NULL, state = 'abandoned'
 WHERE id {{in_ids}} AND state IN ('pending', 'failed', 'reserved', 'running')

-- name: purgeable_blocked
SELECT id FROM {{schema}}dbtaskqueue_task {{by_blocked}} WHERE {{is_blocked}} AND id <= :highest
 ORDER BY id DESC LIMIT :limit {{for_update}}

-- name: with_children
SELECT id FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} AND (flow & 1) = 1

-- name: is_left
SELECT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}} AND id <= :highest)
    OR EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_task {{by_blocked}} WHERE {{is_blocked}} AND id <= :highest)
    OR EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_task {{by_held}}
                WHERE {{is_held}} AND queue = :queue AND id <= :highest)

-- name: prunable
SELECT id FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue
   AND id > :after AND finished_at < :before
 ORDER BY id LIMIT :limit

-- name: lock_final
-- A locked task is getting a child or is being retried, so it is kept. A user's transaction may hold the lock for long.
SELECT id FROM {{schema}}dbtaskqueue_task
 WHERE id {{in_ids}} AND state IN ('done', 'cancelled', 'abandoned') {{for_update_if_free}}

-- name: delete_large
DELETE FROM {{schema}}dbtaskqueue_large WHERE task {{in_ids}}

-- name: delete_notes
DELETE FROM {{schema}}dbtaskqueue_note WHERE task {{in_ids}}

-- name: delete_attempts
DELETE FROM {{schema}}dbtaskqueue_attempt WHERE task {{in_ids}}

-- name: delete_tasks
DELETE FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}}

-- name: fix_due_after_clock_change
UPDATE {{schema}}dbtaskqueue_task {{by_claimable}} SET due = :now, due_set_at = :now
 WHERE state IN ('pending', 'failed') AND blocked = 0 AND due > :now AND due <= due_set_at

-- name: insert_expiry
INSERT INTO {{schema}}dbtaskqueue_expiry (task, expires) VALUES (:task, :expires)

-- name: export_expiry
SELECT task, expires FROM {{schema}}dbtaskqueue_expiry WHERE task > :after AND task <= :last

-- name: expirable
-- Held tasks stay listed, since they may be released.
SELECT task FROM {{schema}}dbtaskqueue_expiry
 WHERE expires <= :now
   AND (SELECT CASE WHEN state IN ('reserved', 'running') THEN 0 ELSE 1 END
          FROM {{schema}}dbtaskqueue_task WHERE id = task) = 1
 ORDER BY expires LIMIT :limit

-- name: lock_expired
SELECT id, flow FROM {{schema}}dbtaskqueue_task
 WHERE id {{in_ids}} AND state IN ('pending', 'failed') AND expires <= :now ORDER BY id {{for_update}}

-- name: expire
UPDATE {{schema}}dbtaskqueue_task
   SET token = token + 1, finished_at = :now, worker = NULL, reason = :reason, state = 'abandoned'
 WHERE id {{in_ids}} AND state IN ('pending', 'failed') AND expires <= :now

-- name: may_expire
-- Tasks that were claimed before they could be locked. They stay listed, even if they were released since.
SELECT id FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} AND finished_at IS NULL AND expires IS NOT NULL

-- name: delete_expiries
DELETE FROM {{schema}}dbtaskqueue_expiry WHERE task {{in_ids}}
