-- The facet Claims: what workers do with the tasks that they hold. How a claim finds and takes tasks differs on each
-- engine.

-- name: start
UPDATE {{schema}}dbtaskqueue_task
   SET attempt = attempt + 1, started_at = :at, batched = 0, state = 'running'
 WHERE {{is_reserved}} AND (expires IS NULL OR expires > :at OR batched = 1)

-- name: expire_reserved
-- A task that was reserved in time, but is started too late. A task of a batch starts within a second, so it may start.
UPDATE {{schema}}dbtaskqueue_task
   SET token = token + 1, finished_at = :at, worker = NULL, batched = 0, reason = :reason, state = 'abandoned'
 WHERE {{is_reserved}} AND expires <= :at AND batched = 0

-- name: finish
-- The task is running, or it is reserved and its batch stores start and finish together. A task with children is only
-- ended if :flow is 1: then later statements of the transaction decide them.
UPDATE {{schema}}dbtaskqueue_task
   SET finished_at = :at, result = :result, cpu = :cpu, memory = :memory, batched = 0,
       attempt = CASE WHEN state = 'reserved' THEN attempt + 1 ELSE attempt END,
       started_at = CASE WHEN state = 'reserved' THEN :started_at ELSE started_at END,
       state = 'done'
 WHERE {{is_started}} AND (flow & 1) <= :flow

-- name: fail
UPDATE {{schema}}dbtaskqueue_task
   SET due = CASE WHEN cancel_requested = 1 OR :final = 1 THEN due ELSE coalesce(:due, due) END, due_set_at = :at,
       finished_at = CASE WHEN cancel_requested = 1 OR :final = 1 THEN :at END,
       worker = CASE WHEN cancel_requested = 1 OR :final = 1 THEN worker END,
       state = CASE WHEN cancel_requested = 1 THEN 'cancelled' WHEN :final = 1 THEN 'abandoned' ELSE 'failed' END
 WHERE {{is_running}}

-- name: release_reserved
UPDATE {{schema}}dbtaskqueue_task
   SET due = coalesce(:due, due), worker = NULL, batched = 0,
       due_set_at = CASE WHEN :due IS NULL THEN due_set_at ELSE :at END, state = 'pending'
 WHERE {{is_reserved}}

-- name: release_running
-- The started attempt does not count. If cancellation was requested, the task becomes cancelled instead.
UPDATE {{schema}}dbtaskqueue_task
   SET attempt = CASE WHEN cancel_requested = 1 THEN attempt ELSE attempt - 1 END,
       due = CASE WHEN cancel_requested = 1 THEN due ELSE coalesce(:due, due) END,
       due_set_at = CASE WHEN :due IS NULL THEN due_set_at ELSE :at END,
       finished_at = CASE WHEN cancel_requested = 1 THEN :at END,
       worker = CASE WHEN cancel_requested = 1 THEN worker END,
       state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END
 WHERE {{is_running}}

-- name: ended_attempt
-- The attempt that has just ended. A release has already subtracted it from the count.
SELECT state, CASE WHEN state = 'pending' THEN attempt + 1 ELSE attempt END, started_at, flow
  FROM {{schema}}dbtaskqueue_task WHERE id = :id

-- name: save
INSERT INTO {{schema}}dbtaskqueue_large (task, name, value)
SELECT id, :name, :value FROM {{schema}}dbtaskqueue_task WHERE {{is_started}} {{for_share}}
    ON CONFLICT (task, name) DO UPDATE SET value = excluded.value

-- name: saved
SELECT name, value FROM {{schema}}dbtaskqueue_large WHERE task = :task AND name NOT IN ('payload', 'result')

-- name: saved_briefly
SELECT name, length(value), substr(value, 1, 200) FROM {{schema}}dbtaskqueue_large
 WHERE task = :task AND name NOT IN ('payload', 'result') LIMIT :limit

-- name: save_note
INSERT INTO {{schema}}dbtaskqueue_note AS note (task, token, name, value, at, changes)
SELECT id, token, :name, :value, :at, 1 FROM {{schema}}dbtaskqueue_task WHERE {{is_started}}
    ON CONFLICT (task, token, name) DO UPDATE SET value = excluded.value, at = excluded.at, changes = note.changes + 1

-- name: lock_claim
SELECT 1 FROM {{schema}}dbtaskqueue_task WHERE {{is_started}} {{for_update}}

-- name: next_functions
-- The first waiting tasks, in the order of a claim. Reads at most :limit rows, however many tasks wait.
SELECT function, command, due FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}}
 ORDER BY rank, due, id LIMIT :limit
