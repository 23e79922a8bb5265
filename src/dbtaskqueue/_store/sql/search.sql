-- The facet Search: finding tasks by filters.
--
-- A search looks at candidates in steps. Each step is an index range or a list of ids, and the conditions are tested on
-- its rows only: CASE keeps the engines from choosing another index because of a condition. {{…}} :conditions stands for
-- fragments of the second half of this file (queries.composed).

-- name: step_down
-- How many rows a step down the primary key has, and where it ends.
SELECT count(*), min(id) FROM (SELECT id FROM {{schema}}dbtaskqueue_task {{by_id}}
                                WHERE id <= :top AND id >= :floor ORDER BY id DESC LIMIT :limit) AS step

-- name: count_between
SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_id}}
 WHERE id <= :top AND id >= :floor AND CASE WHEN :conditions THEN 1 ELSE 0 END = 1

-- name: matches_between
SELECT id FROM {{schema}}dbtaskqueue_task {{by_id}}
 WHERE id <= :top AND id >= :floor AND CASE WHEN :conditions THEN 1 ELSE 0 END = 1
 ORDER BY id DESC LIMIT :limit

-- name: payloads_between
SELECT id, function, command, {{task_payload}} FROM {{schema}}dbtaskqueue_task {{by_id}}
 WHERE id <= :top AND id >= :floor AND CASE WHEN :conditions THEN 1 ELSE 0 END = 1
 ORDER BY id DESC

-- name: matches_among
SELECT id FROM {{schema}}dbtaskqueue_task
 WHERE id {{in_ids}} AND CASE WHEN :conditions THEN 1 ELSE 0 END = 1

-- name: payloads_among
SELECT id, function, command, {{task_payload}} FROM {{schema}}dbtaskqueue_task
 WHERE id {{in_ids}} AND CASE WHEN :conditions THEN 1 ELSE 0 END = 1

-- name: ends_between
SELECT id, {{latest_end}} FROM {{schema}}dbtaskqueue_task {{by_id}}
 WHERE id <= :top AND id >= :floor AND CASE WHEN :conditions THEN 1 ELSE 0 END = 1
 ORDER BY id DESC

-- name: ends_among
SELECT id, {{latest_end}} FROM {{schema}}dbtaskqueue_task
 WHERE id {{in_ids}} AND CASE WHEN :conditions THEN 1 ELSE 0 END = 1

-- name: newest
SELECT id, created_at FROM {{schema}}dbtaskqueue_task ORDER BY id DESC LIMIT 1

-- name: lowest_id
SELECT coalesce(min(id), 0) FROM {{schema}}dbtaskqueue_task

-- name: created_from
-- The first task from an id on: for a binary search by time.
SELECT id, created_at FROM {{schema}}dbtaskqueue_task {{by_id}} WHERE id >= :id ORDER BY id LIMIT 1

-- name: waiting_by_due
-- Tasks of one priority, in the order of a claim, after a position.
SELECT due, id FROM {{schema}}dbtaskqueue_task {{by_claimable}}
 WHERE {{waiting}} AND rank = :rank AND due >= :due AND (due > :due OR id > :id)
 ORDER BY due, id LIMIT :limit

-- name: running_by_start
SELECT started_at, id FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE {{is_held}} AND state = 'running' AND started_at IS NOT NULL

-- name: latest_end
-- When the task ended, or else its latest attempt. One that runs has not ended.
coalesce(finished_at, CASE WHEN state = 'running' OR attempt = 0 THEN NULL ELSE
    (SELECT finished_at FROM {{latest_attempt}}) END)

-- name: latest_attempt
{{schema}}dbtaskqueue_attempt AS past WHERE past.task = dbtaskqueue_task.id ORDER BY past.token DESC LIMIT 1

-- The fragments: conditions on a row of dbtaskqueue_task. :value_n, :low_n and :high_n are bound by number.

-- name: where_queue
queue = :value_n

-- name: where_state
state = :value_n

-- name: where_function
function = :value_n

-- name: where_command
command = 1

-- name: where_no_command
command = 0

-- name: where_callback
function IS NULL AND command = 0

-- name: where_key
"key" = :value_n

-- name: where_schedule
-- The text of a tick in the options, as _formats/task_options.py writes it.
options IS NOT NULL AND {{options_have}}

-- name: where_worker
coalesce(worker, CASE WHEN token > 0 THEN (SELECT worker FROM {{latest_attempt}}) END)
    BETWEEN :low_n AND :high_n

-- name: where_id
id BETWEEN :low_n AND :high_n

-- name: where_rank
rank BETWEEN :low_n AND :high_n

-- name: where_attempt
attempt BETWEEN :low_n AND :high_n

-- name: where_created
created_at BETWEEN :low_n AND :high_n

-- name: where_due
due BETWEEN :low_n AND :high_n

-- name: where_started
started_at BETWEEN :low_n AND :high_n

-- name: where_runs
state = 'running' AND started_at BETWEEN :low_n AND :high_n

-- name: where_ended
{{latest_end}} BETWEEN :low_n AND :high_n

-- name: where_has_ended
{{latest_end}} IS NOT NULL

-- name: where_error
{{error_has}}

-- name: where_payload
{{payload_has}}

-- name: where_text
{{error_has}} OR {{payload_has}} OR {{function_has}} OR {{key_has}}

-- name: where_blocked
blocked <> 0 AND finished_at IS NULL

-- name: where_not_blocked
blocked = 0 OR finished_at IS NOT NULL

-- name: where_suspended
{{is_suspended}} = 1

-- name: where_not_suspended
{{is_suspended}} = 0

-- name: where_cancel_requested
cancel_requested <> 0

-- name: where_no_cancel_requested
cancel_requested = 0
