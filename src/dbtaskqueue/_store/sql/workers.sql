-- The facet Workers: their rows, and the rescue of what they hold.

-- name: register
INSERT INTO {{schema}}dbtaskqueue_worker ({{new_worker_columns}}) VALUES ({{new_worker_values}}) RETURNING id

-- name: beat
UPDATE {{schema}}dbtaskqueue_worker SET beat = beat + 1 WHERE id = :worker AND lost_at IS NULL

-- name: forget_lost
DELETE FROM {{schema}}dbtaskqueue_worker WHERE lost_at < :before

-- name: deregister
DELETE FROM {{schema}}dbtaskqueue_worker WHERE id = :worker

-- name: workers
SELECT {{stored_worker_columns}} FROM {{schema}}dbtaskqueue_worker ORDER BY id

-- name: held
SELECT {{held_columns}} FROM {{schema}}dbtaskqueue_task WHERE {{is_held_by}}

-- name: longest_running
-- The tasks that run longest. Held tasks are few, so they are sorted; only the chosen ones are read.
SELECT {{longest_columns}}
  FROM (SELECT id AS chosen FROM {{schema}}dbtaskqueue_task {{by_held}}
         WHERE {{is_held}} AND state = 'running'
         ORDER BY started_at, id LIMIT :limit) AS longest
  JOIN {{schema}}dbtaskqueue_task ON dbtaskqueue_task.id = longest.chosen
 ORDER BY started_at, dbtaskqueue_task.id

-- name: longest_payload
substr({{task_payload}}, 1, 300)

-- name: longest_progress
{{task_progress}}

-- name: longest_usage
{{task_usage}}

-- name: longest_suspended
{{is_suspended}}

-- name: longest_reported_at
(SELECT max(at) FROM {{schema}}dbtaskqueue_note AS got
  WHERE got.task = dbtaskqueue_task.id AND got.token = dbtaskqueue_task.token AND got.name = 'progress')

-- name: held_suspended
{{is_suspended}}

-- name: mark_lost
UPDATE {{schema}}dbtaskqueue_worker SET lost_at = :now WHERE id = :worker AND beat = :beat AND lost_at IS NULL

-- name: vanished_workers
-- Ids of workers that hold tasks, but have no row or are marked lost.
SELECT DISTINCT worker FROM {{schema}}dbtaskqueue_task WHERE {{is_orphaned}}

-- name: is_orphaned
{{is_held}} AND worker IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_worker AS alive
                    WHERE alive.id = dbtaskqueue_task.worker AND alive.lost_at IS NULL)

-- name: rescue_reserved
UPDATE {{schema}}dbtaskqueue_task
   SET token = token + 1, worker = NULL,
       isolated = CASE WHEN batched = 1 THEN 1 ELSE isolated END, batched = 0, state = 'pending'
 WHERE {{is_held_by}} AND state = 'reserved'

-- name: lost_running
SELECT {{task_columns}},
       (SELECT count(*) FROM {{schema}}dbtaskqueue_attempt AS past
         WHERE past.task = dbtaskqueue_task.id AND past.token > dbtaskqueue_task.retry_token
           AND past.outcome = 'lost')
  FROM {{schema}}dbtaskqueue_task
 WHERE {{is_held_by}} AND state = 'running'

-- name: rescue_running
UPDATE {{schema}}dbtaskqueue_task
   SET token = token + 1, due = :due, due_set_at = :at, finished_at = :finished_at, worker = NULL, state = :state
 WHERE {{is_running}}

-- name: count_lost_worker
INSERT INTO {{schema}}dbtaskqueue_duty AS known (name, next_at, turns) VALUES ('workers lost', :now, 1)
    ON CONFLICT (name) DO UPDATE SET next_at = :now, turns = known.turns + 1

-- name: workers_lost
SELECT turns FROM {{schema}}dbtaskqueue_duty WHERE name = 'workers lost'

-- name: running
SELECT id, queue, function, command, attempt, worker, started_at, cancel_requested, {{is_suspended}},
       (SELECT at FROM {{schema}}dbtaskqueue_note AS got
         WHERE got.task = dbtaskqueue_task.id AND got.token = dbtaskqueue_task.token AND got.name = 'progress'),
       (SELECT changes FROM {{schema}}dbtaskqueue_note AS got
         WHERE got.task = dbtaskqueue_task.id AND got.token = dbtaskqueue_task.token AND got.name = 'progress')
  FROM {{schema}}dbtaskqueue_task {{by_held}} WHERE {{is_held}} AND state = 'running' LIMIT :limit
