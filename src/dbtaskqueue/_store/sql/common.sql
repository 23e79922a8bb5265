-- What every engine says the same way. Parameters are bound by name.

-- name: task_columns
-- The error is the last one since an operator's retry; earlier ones stay in the attempts.
dbtaskqueue_task.id, queue, state, rank, due, dbtaskqueue_task.token, attempt, budget, base,
dbtaskqueue_task.worker, solo, cancel_requested, created_at, dbtaskqueue_task.started_at,
dbtaskqueue_task.finished_at, key, function, policy,
coalesce(payload, (SELECT value FROM dbtaskqueue_large
                    WHERE task = dbtaskqueue_task.id AND name = 'payload')),
CASE WHEN state = 'done' THEN coalesce(result, (SELECT value FROM dbtaskqueue_large
                                                 WHERE task = dbtaskqueue_task.id AND name = 'result')) END,
CASE WHEN attempt > 0 THEN
    (SELECT error FROM dbtaskqueue_attempt AS past
      WHERE past.task = dbtaskqueue_task.id AND past.token > dbtaskqueue_task.retried AND past.error IS NOT NULL
      ORDER BY past.token DESC LIMIT 1) END

-- name: schema_version
SELECT version, oldest FROM dbtaskqueue_schema

-- name: insert_task
INSERT INTO dbtaskqueue_task
       (id, queue, state, rank, due, decided_at, budget, created_at, key, function, policy, payload)
VALUES (:id, :queue, 'pending', :rank, :due, :created_at, :budget, :created_at, :key, :function, :policy, :payload)

-- name: insert_large
INSERT INTO dbtaskqueue_large (task, name, value) VALUES (:task, :name, :value)

-- name: unfinished_with_key
SELECT id FROM dbtaskqueue_task
 WHERE queue = :queue AND key = :key AND finished_at IS NULL

-- name: get
SELECT {{task_columns}} FROM dbtaskqueue_task WHERE id = :id

-- name: standing
SELECT state, token FROM dbtaskqueue_task WHERE id = :id

-- name: start
UPDATE dbtaskqueue_task
   SET state = 'running', attempt = attempt + 1, started_at = :at, shared = 0
 WHERE id = :id AND token = :token AND state = 'reserved'

-- name: finish
UPDATE dbtaskqueue_task
   SET state = 'done', finished_at = :at, result = :result
 WHERE id = :id AND token = :token AND state = 'running'

-- name: finish_shared
-- Start and finish of a task whose batch stores both at once; a longer one was started meanwhile.
UPDATE dbtaskqueue_task
   SET state = 'done', finished_at = :at, result = :result, shared = 0,
       attempt = CASE WHEN state = 'reserved' THEN attempt + 1 ELSE attempt END,
       started_at = CASE WHEN state = 'reserved' THEN :begun_at ELSE started_at END
 WHERE id = :id AND token = :token AND (state = 'running' OR state = 'reserved' AND shared = 1)

-- name: release_reserved
UPDATE dbtaskqueue_task
   SET state = 'pending', due = coalesce(:due, due), worker = NULL, shared = 0,
       decided_at = CASE WHEN :due IS NULL THEN decided_at ELSE :at END
 WHERE id = :id AND token = :token AND state = 'reserved'

-- name: insert_attempt
INSERT INTO dbtaskqueue_attempt (task, token, number, worker, started_at, finished_at, outcome, error)
VALUES (:task, :token, :number, :worker, :started_at, :finished_at, :outcome, :error)

-- name: cancel
UPDATE dbtaskqueue_task
   SET cancel_requested = CASE WHEN state = 'running' THEN 1 ELSE cancel_requested END,
       token = CASE WHEN state = 'running' THEN token ELSE token + 1 END,
       finished_at = CASE WHEN state = 'running' THEN finished_at ELSE :now END,
       worker = CASE WHEN state = 'running' THEN worker END,
       state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END
 WHERE id = :id AND state IN ('pending', 'failed', 'reserved', 'running')

-- name: keep_done_attempt
-- The done attempt lives in the task's row; before a retry overwrites it, it joins the history.
INSERT INTO dbtaskqueue_attempt (task, token, number, worker, started_at, finished_at, outcome)
SELECT id, token, attempt, worker, started_at, finished_at, 'done'
  FROM dbtaskqueue_task WHERE id = :id AND state = 'done'

-- name: key_is_taken
SELECT 1 FROM dbtaskqueue_task AS other
 WHERE other.queue = (SELECT queue FROM dbtaskqueue_task WHERE id = :id)
   AND other.key = (SELECT key FROM dbtaskqueue_task WHERE id = :id)
   AND other.finished_at IS NULL AND other.id <> :id

-- name: retry
UPDATE dbtaskqueue_task
   SET state = 'pending', retried = token, token = token + 1, due = :now, decided_at = :now, base = attempt,
       finished_at = NULL, result = NULL, worker = NULL, cancel_requested = 0
 WHERE id = :id AND state IN ('failed', 'abandoned', 'cancelled', 'done')

-- name: delete_result
DELETE FROM dbtaskqueue_large WHERE task = :id AND name = 'result'

-- name: delete_task
DELETE FROM dbtaskqueue_task WHERE id = :id AND state IN ('done', 'cancelled', 'abandoned')

-- name: delete_large
DELETE FROM dbtaskqueue_large WHERE task = :id

-- name: delete_attempts
DELETE FROM dbtaskqueue_attempt WHERE task = :id

-- name: attempts
SELECT number, token, worker, started_at, finished_at, outcome, error
  FROM dbtaskqueue_attempt WHERE task = :id
UNION ALL
SELECT attempt, token, worker, started_at, finished_at, CASE WHEN state = 'done' THEN 'done' END, NULL
  FROM dbtaskqueue_task WHERE id = :id AND state IN ('running', 'done')
 ORDER BY 2

-- name: paused
SELECT 1 FROM dbtaskqueue_queue WHERE name = :queue AND paused = 1

-- name: register
INSERT INTO dbtaskqueue_worker (host, pid, boot, namespace, started, lease, created_at)
VALUES (:host, :pid, :boot, :namespace, :started, :lease, :created_at)

-- name: beat
UPDATE dbtaskqueue_worker SET beat = beat + 1 WHERE id = :worker AND lost_at IS NULL

-- name: forget_lost
DELETE FROM dbtaskqueue_worker WHERE lost_at < :before

-- name: deregister
DELETE FROM dbtaskqueue_worker
 WHERE id = :id AND NOT EXISTS
       (SELECT 1 FROM dbtaskqueue_task WHERE worker = :id AND state IN ('reserved', 'running'))

-- name: workers
SELECT id, host, pid, boot, namespace, started, lease, beat, created_at, lost_at
  FROM dbtaskqueue_worker ORDER BY id

-- name: held
SELECT id, token, state, cancel_requested FROM dbtaskqueue_task
 WHERE worker = :worker AND state IN ('reserved', 'running')

-- name: mark_lost
UPDATE dbtaskqueue_worker SET lost_at = :now WHERE id = :worker AND beat = :beat AND lost_at IS NULL

-- name: orphaning_workers
-- Ids that hold tasks but have no living row.
SELECT DISTINCT worker FROM dbtaskqueue_task
 WHERE state IN ('reserved', 'running') AND worker IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM dbtaskqueue_worker AS living
                    WHERE living.id = dbtaskqueue_task.worker AND living.lost_at IS NULL)

-- name: give_back_reserved
UPDATE dbtaskqueue_task
   SET state = 'pending', token = token + 1, worker = NULL,
       solo = CASE WHEN shared = 1 THEN 1 ELSE solo END, shared = 0
 WHERE worker = :worker AND state IN ('reserved', 'running') AND state = 'reserved'

-- name: lost_running
SELECT {{task_columns}},
       (SELECT count(*) FROM dbtaskqueue_attempt AS past
         WHERE past.task = dbtaskqueue_task.id AND past.token > dbtaskqueue_task.retried
           AND past.outcome = 'lost')
  FROM dbtaskqueue_task
 WHERE dbtaskqueue_task.worker = :worker AND state IN ('reserved', 'running') AND state = 'running'

-- name: give_back_running
UPDATE dbtaskqueue_task
   SET state = :state, token = token + 1, due = :due, decided_at = :at, finished_at = :finished_at, worker = NULL
 WHERE id = :id AND token = :token AND state = 'running'
