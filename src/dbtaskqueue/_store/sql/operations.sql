-- The facet Operations: what operators do, and the audit log.

-- name: insert_action
INSERT INTO {{schema}}dbtaskqueue_action ({{new_action_columns}}) VALUES ({{new_action_values}})

-- name: actions
SELECT {{stored_action_columns}} FROM {{schema}}dbtaskqueue_action {{by_action_id}}
 WHERE id < :before AND (who = :who OR :who IS NULL) AND (verb = :verb OR :verb IS NULL)
   AND (queue = :queue OR :queue IS NULL)
 ORDER BY id DESC LIMIT :limit

-- name: actions_of_task
SELECT {{stored_action_columns}} FROM {{schema}}dbtaskqueue_action
 WHERE task = :task AND id < :before AND (who = :who OR :who IS NULL) AND (verb = :verb OR :verb IS NULL)
 ORDER BY id DESC LIMIT :limit

-- name: old_actions
-- The oldest actions, of which some are too old.
SELECT id, at FROM {{schema}}dbtaskqueue_action ORDER BY id LIMIT :limit

-- name: action_to_keep
-- The oldest of the newest actions that are kept.
SELECT id FROM {{schema}}dbtaskqueue_action ORDER BY id DESC LIMIT 1 OFFSET :most

-- name: delete_actions
DELETE FROM {{schema}}dbtaskqueue_action WHERE id {{in_ids}}

-- name: reschedule_many
UPDATE {{schema}}dbtaskqueue_task
   SET due_set_at = CASE WHEN :has_due = 1 THEN :now ELSE due_set_at END, due = coalesce(:due, due),
       rank = coalesce(:rank, rank), queue = coalesce(:queue, queue)
 WHERE id {{in_ids}} AND state IN ('pending', 'failed')

-- name: fix_gates
-- A blocked task that was rescheduled is due at its new time, not after the end of its last parent.
UPDATE {{schema}}dbtaskqueue_gate SET delay = NULL WHERE task {{in_ids}}

-- name: taken_in_queue
-- Tasks whose key another unfinished task of the queue has.
SELECT moved.id FROM {{schema}}dbtaskqueue_task AS moved
 WHERE moved.id {{in_ids}} AND moved."key" IS NOT NULL AND moved.queue <> :queue
   AND EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_task AS other
                WHERE other.queue = :queue AND other."key" = moved."key" AND other.finished_at IS NULL)

-- name: lock_bulk
SELECT id, state, cancel_requested, flow, CASE WHEN "key" IS NULL THEN 0 ELSE 1 END
  FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} ORDER BY id {{for_update}}

-- name: read_bulk
SELECT id, state, cancel_requested, flow, CASE WHEN "key" IS NULL THEN 0 ELSE 1 END
  FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} ORDER BY id

-- name: cancel_many
UPDATE {{schema}}dbtaskqueue_task
   SET cancel_requested = CASE WHEN state = 'running' THEN 1 ELSE cancel_requested END,
       token = CASE WHEN state = 'running' THEN token ELSE token + 1 END,
       finished_at = CASE WHEN state = 'running' THEN finished_at ELSE :now END,
       worker = CASE WHEN state = 'running' THEN worker END,
       state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END
 WHERE id {{in_ids}}
   AND (state IN ('pending', 'failed', 'reserved') OR state = 'running' AND cancel_requested = 0)

-- name: retry_many
-- Tasks without a key, parents, children and a result. The due times are spread evenly by the golden ratio.
UPDATE {{schema}}dbtaskqueue_task
   SET retry_token = token, token = token + 1, due = :now + (id * 618033989) % :spread, due_set_at = :now,
       retry_base = attempt, finished_at = NULL, result = NULL, cpu = NULL, memory = NULL, worker = NULL,
       cancel_requested = 0, expires = NULL, reason = NULL, state = 'pending'
 WHERE id {{in_ids}} AND state IN ('failed', 'abandoned', 'cancelled')

-- name: insert_operation
INSERT INTO {{schema}}dbtaskqueue_operation ({{new_operation_columns}}) VALUES ({{new_operation_values}}) RETURNING id

-- name: operations
SELECT {{stored_operation_columns}} FROM {{schema}}dbtaskqueue_operation {{by_operation_id}}
 WHERE id < :before ORDER BY id DESC LIMIT :limit

-- name: open_operations
SELECT {{stored_operation_columns}} FROM {{schema}}dbtaskqueue_operation
 WHERE state = 'running' AND id < :before ORDER BY id DESC LIMIT :limit

-- name: lock_operation
SELECT state, runner, step_at, changed, refused FROM {{schema}}dbtaskqueue_operation WHERE id = :id {{for_update}}

-- name: store_step
UPDATE {{schema}}dbtaskqueue_operation
   SET position = coalesce(:position, position), scanned = scanned + :scanned, changed = changed + :changed,
       refused = :refused, step_at = :now
 WHERE id = :id

-- name: take_operation
UPDATE {{schema}}dbtaskqueue_operation SET runner = :runner, step_at = :now WHERE id = :id

-- name: end_operation
UPDATE {{schema}}dbtaskqueue_operation SET state = :state, ended_at = :now, step_at = :now WHERE id = :id
