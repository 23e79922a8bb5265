-- Texts that queries of several facets include. Parameters are bound by name.
--
-- Lists such as {{task_columns}} are made from the declarations in records.py. A query task_FIELD is the expression of
-- a field there that is not a column of its own.
--
-- Each engine defines: {{schema}} before each table; {{waiting}}, {{is_held_by}}, {{is_held}} and {{is_ended}} for the
-- conditions that its indexes serve; {{by_…}} to name the index; {{in_ids}} for a list of numbers; {{for_update}},
-- {{for_update_if_free}} and {{for_share}} where rows are locked one by one.

-- name: task_payload
coalesce(payload, (SELECT value FROM {{schema}}dbtaskqueue_large WHERE task = dbtaskqueue_task.id AND name = 'payload'))

-- name: task_result
CASE WHEN state = 'done' THEN coalesce(result, (SELECT value FROM {{schema}}dbtaskqueue_large
                                                 WHERE task = dbtaskqueue_task.id AND name = 'result')) END

-- name: task_error
-- Errors of earlier attempts, and those before an operator's retry, are in the attempts.
coalesce(reason, CASE WHEN attempt > 0 THEN (SELECT error FROM {{last_failure}}) END)

-- name: task_error_type
CASE WHEN attempt > 0 THEN (SELECT error_type FROM {{last_failure}}) END

-- name: task_suspended
{{is_suspended}}

-- name: task_progress
CASE WHEN attempt > 0 THEN
    (SELECT value FROM {{schema}}dbtaskqueue_note AS got
      WHERE got.task = dbtaskqueue_task.id AND got.token = dbtaskqueue_task.token AND got.name = 'progress') END

-- name: task_usage
CASE WHEN state = 'running' THEN
    (SELECT value FROM {{schema}}dbtaskqueue_note AS got
      WHERE got.task = dbtaskqueue_task.id AND got.token = dbtaskqueue_task.token AND got.name = 'usage') END

-- name: is_suspended
CASE WHEN state = 'running' AND suspended = dbtaskqueue_task.token THEN 1 ELSE 0 END

-- name: last_failure
-- The last attempt with an error since an operator's retry.
{{schema}}dbtaskqueue_attempt AS past
  WHERE past.task = dbtaskqueue_task.id AND past.token > dbtaskqueue_task.retry_token AND past.error IS NOT NULL
  ORDER BY past.token DESC LIMIT 1

-- name: is_reserved
-- Whether the claim with this token has reserved the task.
id = :id AND token = :token AND state = 'reserved'

-- name: is_running
id = :id AND token = :token AND state = 'running'

-- name: is_started
-- Whether the claim with this token has started: the task runs, or its batch stores start and end together.
id = :id AND token = :token AND (state = 'running' OR state = 'reserved' AND batched = 1)

-- name: insert_attempt
INSERT INTO {{schema}}dbtaskqueue_attempt ({{stored_attempt_columns}}) VALUES ({{stored_attempt_values}})

-- name: attempt_in_row
-- The attempt that runs, or that made the task done. It has no row of its own, only the task's.
SELECT id AS task, token, attempt AS number, worker, started_at, finished_at,
       CASE WHEN state = 'done' THEN 'done' END AS outcome, NULL AS error, NULL AS error_type,
       CASE WHEN state = 'done' THEN cpu END AS cpu, CASE WHEN state = 'done' THEN memory END AS memory
  FROM {{schema}}dbtaskqueue_task WHERE id = :id AND state IN ('running', 'done')
