-- What every engine says the same way. Parameters are bound by name.
--
-- What an engine fills in: {{schema}} before each table, {{waiting}}, {{held}}, {{is_held}} and {{is_ended}} for the
-- conditions that its indexes serve, {{by_…}} to name the index, {{in_ids}} for a list of numbers, {{for_update}} and {{for_share}} where rows are
-- locked one by one.

-- name: claim_columns
-- The error is that of the last attempt since an operator's retry; earlier ones stay in the attempts.
dbtaskqueue_task.id, queue, state, rank, due, dbtaskqueue_task.token, attempt, budget, retry_base,
dbtaskqueue_task.worker, isolated, cancel_requested, created_at, dbtaskqueue_task.started_at,
dbtaskqueue_task.finished_at, "key", function, options,
coalesce(payload, (SELECT value FROM {{schema}}dbtaskqueue_large
                    WHERE task = dbtaskqueue_task.id AND name = 'payload')),
CASE WHEN state = 'done' THEN coalesce(result, (SELECT value FROM {{schema}}dbtaskqueue_large
                                                 WHERE task = dbtaskqueue_task.id AND name = 'result')) END,
CASE WHEN attempt > 0 THEN (SELECT error FROM {{last_failure}}) END,
meta, command, dbtaskqueue_task.retry_token

-- name: task_columns
-- Of a new claim, nothing of what comes after those can be there.
{{claim_columns}},
{{is_suspended}},
CASE WHEN attempt > 0 THEN
    (SELECT value FROM {{schema}}dbtaskqueue_note AS got
      WHERE got.task = dbtaskqueue_task.id AND got.token = dbtaskqueue_task.token AND got.name = 'progress') END,
CASE WHEN state = 'running' THEN
    (SELECT value FROM {{schema}}dbtaskqueue_note AS got
      WHERE got.task = dbtaskqueue_task.id AND got.token = dbtaskqueue_task.token AND got.name = 'usage') END,
CASE WHEN attempt > 0 THEN (SELECT error_type FROM {{last_failure}}) END

-- name: last_failure
-- The last attempt with an error since an operator's retry.
{{schema}}dbtaskqueue_attempt AS past
  WHERE past.task = dbtaskqueue_task.id AND past.token > dbtaskqueue_task.retry_token AND past.error IS NOT NULL
  ORDER BY past.token DESC LIMIT 1

-- name: is_suspended
CASE WHEN state = 'running' AND suspended = dbtaskqueue_task.token THEN 1 ELSE 0 END

-- name: schema_version
SELECT version, oldest FROM {{schema}}dbtaskqueue_schema

-- name: insert_task
INSERT INTO {{schema}}dbtaskqueue_task
       (queue, state, rank, due, due_set_at, budget, created_at, "key", function, options, meta, payload, command)
VALUES (:queue, 'pending', :rank, :due, :created_at, :budget, :created_at, :key, :function, :options, :meta, :payload,
        :command)
RETURNING id

-- name: insert_large
-- It may be there: a finish whose answer was lost is stored again.
INSERT INTO {{schema}}dbtaskqueue_large (task, name, value) VALUES (:task, :name, :value)
    ON CONFLICT (task, name) DO NOTHING

-- name: unfinished_with_key
SELECT id FROM {{schema}}dbtaskqueue_task
 WHERE queue = :queue AND "key" = :key AND finished_at IS NULL

-- name: get
SELECT {{task_columns}} FROM {{schema}}dbtaskqueue_task WHERE id = :id

-- name: standing
SELECT state, token FROM {{schema}}dbtaskqueue_task WHERE id = :id

-- name: standings
SELECT id, state, token FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}}

-- name: start
UPDATE {{schema}}dbtaskqueue_task
   SET attempt = attempt + 1, started_at = :at, batched = 0, state = 'running'
 WHERE {{is_reserved}}

-- name: finish
-- Of one that runs, or of one whose batch stores start and finish at once.
UPDATE {{schema}}dbtaskqueue_task
   SET finished_at = :at, result = :result, cpu = :cpu, memory = :memory, batched = 0,
       attempt = CASE WHEN state = 'reserved' THEN attempt + 1 ELSE attempt END,
       started_at = CASE WHEN state = 'reserved' THEN :started_at ELSE started_at END,
       state = 'done'
 WHERE {{is_started}}

-- name: release_reserved
UPDATE {{schema}}dbtaskqueue_task
   SET due = coalesce(:due, due), worker = NULL, batched = 0,
       due_set_at = CASE WHEN :due IS NULL THEN due_set_at ELSE :at END, state = 'pending'
 WHERE {{is_reserved}}

-- name: insert_attempt
INSERT INTO {{schema}}dbtaskqueue_attempt
       (task, token, number, worker, started_at, finished_at, outcome, error, error_type, cpu, memory)
VALUES (:task, :token, :number, :worker, :started_at, :finished_at, :outcome, :error, :error_type, :cpu, :memory)

-- name: cancel
UPDATE {{schema}}dbtaskqueue_task
   SET cancel_requested = CASE WHEN state = 'running' THEN 1 ELSE cancel_requested END,
       token = CASE WHEN state = 'running' THEN token ELSE token + 1 END,
       finished_at = CASE WHEN state = 'running' THEN finished_at ELSE :now END,
       worker = CASE WHEN state = 'running' THEN worker END,
       state = CASE WHEN state = 'running' THEN 'running' ELSE 'cancelled' END
 WHERE id = :id AND (state IN ('pending', 'failed', 'reserved') OR state = 'running' AND :running = 1)

-- name: keep_done_attempt
-- The done attempt lives in the task's row; before a retry overwrites it, it joins the history.
INSERT INTO {{schema}}dbtaskqueue_attempt (task, token, number, worker, started_at, finished_at, outcome, cpu, memory)
SELECT id, token, attempt, worker, started_at, finished_at, 'done', cpu, memory
  FROM {{schema}}dbtaskqueue_task WHERE id = :id AND state = 'done'

-- name: key_is_taken
SELECT 1 FROM {{schema}}dbtaskqueue_task AS other
 WHERE other.queue = (SELECT queue FROM {{schema}}dbtaskqueue_task WHERE id = :id)
   AND other."key" = (SELECT "key" FROM {{schema}}dbtaskqueue_task WHERE id = :id)
   AND other.finished_at IS NULL AND other.id <> :id

-- name: retry
UPDATE {{schema}}dbtaskqueue_task
   SET retry_token = token, token = token + 1, due = :now, due_set_at = :now, retry_base = attempt,
       finished_at = NULL, result = NULL, cpu = NULL, memory = NULL, worker = NULL, cancel_requested = 0, state = 'pending'
 WHERE id = :id AND state IN ('failed', 'abandoned', 'cancelled', 'done')

-- name: delete_what_was_done
-- The result, the checkpoint and the steps.
DELETE FROM {{schema}}dbtaskqueue_large WHERE task = :id AND name <> 'payload'

-- name: is_reserved
-- By the claim with this token.
id = :id AND token = :token AND state = 'reserved'

-- name: is_running
id = :id AND token = :token AND state = 'running'

-- name: is_started
-- Of the claim with this token: it runs, or its batch stores start and end at once.
id = :id AND token = :token AND (state = 'running' OR state = 'reserved' AND batched = 1)

-- name: keep
INSERT INTO {{schema}}dbtaskqueue_large (task, name, value)
SELECT id, :name, :value FROM {{schema}}dbtaskqueue_task WHERE {{is_started}} {{for_share}}
    ON CONFLICT (task, name) DO UPDATE SET value = excluded.value

-- name: kept
SELECT name, value FROM {{schema}}dbtaskqueue_large WHERE task = :task AND name NOT IN ('payload', 'result')

-- name: note
INSERT INTO {{schema}}dbtaskqueue_note (task, token, name, value)
SELECT id, token, :name, :value FROM {{schema}}dbtaskqueue_task WHERE {{is_started}}
    ON CONFLICT (task, token, name) DO UPDATE SET value = excluded.value

-- name: suspendable
-- Only processes can stand still.
SELECT 1 FROM {{schema}}dbtaskqueue_task
 WHERE id = :id AND state = 'running'
   AND EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_worker AS living
                WHERE living.id = dbtaskqueue_task.worker AND living.lost_at IS NULL AND living.executor = 'process')
{{for_update}}

-- name: suspend
UPDATE {{schema}}dbtaskqueue_task SET suspended = CASE WHEN :suspended = 1 THEN token END WHERE id = :id

-- name: lock_claim
SELECT 1 FROM {{schema}}dbtaskqueue_task WHERE {{is_started}} {{for_update}}

-- name: delete_large
DELETE FROM {{schema}}dbtaskqueue_large WHERE task {{in_ids}}

-- name: delete_notes
DELETE FROM {{schema}}dbtaskqueue_note WHERE task {{in_ids}}

-- name: delete_attempts
DELETE FROM {{schema}}dbtaskqueue_attempt WHERE task {{in_ids}}

-- name: attempts
-- Without their outputs: a task may have any number of these.
SELECT number, token, worker, started_at, finished_at, outcome, error, NULL, cpu, memory, error_type
  FROM {{schema}}dbtaskqueue_attempt WHERE task = :id AND token >= :since
UNION ALL
SELECT attempt, token, worker, started_at, finished_at, CASE WHEN state = 'done' THEN 'done' END, NULL, NULL,
       CASE WHEN state = 'done' THEN cpu END, CASE WHEN state = 'done' THEN memory END, NULL
  FROM {{schema}}dbtaskqueue_task WHERE id = :id AND token >= :since AND state IN ('running', 'done')
 ORDER BY 2

-- name: outputs
-- Outputs of a task's newest attempts, by token.
SELECT token, value FROM {{schema}}dbtaskqueue_note
 WHERE task = :id AND token >= :since AND name = 'output'
 ORDER BY token DESC LIMIT :limit

-- name: output
SELECT value FROM {{schema}}dbtaskqueue_note WHERE task = :id AND token = :token AND name = 'output'

-- name: queues
-- One index seek for each name, however much a queue holds. Only what is held is read row by row, and that is little.
WITH RECURSIVE waiting_in(name) AS (
    SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE state IN ('pending', 'failed')
    UNION ALL
    SELECT (SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_claimable}}
             WHERE state IN ('pending', 'failed') AND queue > waiting_in.name)
      FROM waiting_in WHERE waiting_in.name IS NOT NULL),
ended_in(name) AS (
    SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_ended}} WHERE finished_at IS NOT NULL OR state = 'failed'
    UNION ALL
    SELECT (SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_ended}}
             WHERE (finished_at IS NOT NULL OR state = 'failed') AND queue > ended_in.name)
      FROM ended_in WHERE ended_in.name IS NOT NULL)
SELECT name FROM waiting_in WHERE name IS NOT NULL
UNION
SELECT name FROM ended_in WHERE name IS NOT NULL
UNION
SELECT queue FROM {{schema}}dbtaskqueue_task {{by_held}} WHERE state IN ('reserved', 'running')
UNION
SELECT name FROM {{schema}}dbtaskqueue_queue WHERE paused = 1

-- name: paused
SELECT 1 FROM {{schema}}dbtaskqueue_queue WHERE name = :queue AND paused = 1

-- name: register
INSERT INTO {{schema}}dbtaskqueue_worker
       (host, pid, boot, namespace, started, lease, created_at, executor, queues, functions)
VALUES (:host, :pid, :boot, :namespace, :started, :lease, :created_at, :executor, :queues, :functions)
RETURNING id

-- name: beat
UPDATE {{schema}}dbtaskqueue_worker SET beat = beat + 1 WHERE id = :worker AND lost_at IS NULL

-- name: forget_lost
DELETE FROM {{schema}}dbtaskqueue_worker WHERE lost_at < :before

-- name: deregister
DELETE FROM {{schema}}dbtaskqueue_worker WHERE id = :worker

-- name: workers
SELECT id, host, pid, boot, namespace, started, lease, beat, created_at, lost_at, executor, queues, functions
  FROM {{schema}}dbtaskqueue_worker ORDER BY id

-- name: held_by
SELECT id, token, state, cancel_requested, {{is_suspended}} FROM {{schema}}dbtaskqueue_task WHERE {{held}}

-- name: mark_lost
UPDATE {{schema}}dbtaskqueue_worker SET lost_at = :now WHERE id = :worker AND beat = :beat AND lost_at IS NULL

-- name: orphaning_workers
-- Ids that hold tasks but have no living row.
SELECT DISTINCT worker FROM {{schema}}dbtaskqueue_task
 WHERE {{is_held}} AND worker IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_worker AS living
                    WHERE living.id = dbtaskqueue_task.worker AND living.lost_at IS NULL)

-- name: give_back_reserved
UPDATE {{schema}}dbtaskqueue_task
   SET token = token + 1, worker = NULL,
       isolated = CASE WHEN batched = 1 THEN 1 ELSE isolated END, batched = 0, state = 'pending'
 WHERE {{held}} AND state = 'reserved'

-- name: lost_running
SELECT {{task_columns}},
       (SELECT count(*) FROM {{schema}}dbtaskqueue_attempt AS past
         WHERE past.task = dbtaskqueue_task.id AND past.token > dbtaskqueue_task.retry_token
           AND past.outcome = 'lost')
  FROM {{schema}}dbtaskqueue_task
 WHERE {{held}} AND state = 'running'

-- name: give_back_running
UPDATE {{schema}}dbtaskqueue_task
   SET token = token + 1, due = :due, due_set_at = :at, finished_at = :finished_at, worker = NULL, state = :state
 WHERE {{is_running}}

-- name: fail
UPDATE {{schema}}dbtaskqueue_task
   SET due = CASE WHEN cancel_requested = 1 OR :final = 1 THEN due ELSE coalesce(:due, due) END, due_set_at = :at,
       finished_at = CASE WHEN cancel_requested = 1 OR :final = 1 THEN :at END,
       worker = CASE WHEN cancel_requested = 1 OR :final = 1 THEN worker END,
       state = CASE WHEN cancel_requested = 1 THEN 'cancelled' WHEN :final = 1 THEN 'abandoned' ELSE 'failed' END
 WHERE {{is_running}}

-- name: release_running
-- The attempt that had started is not counted, but for a task that was asked to end: that one is cancelled.
UPDATE {{schema}}dbtaskqueue_task
   SET attempt = CASE WHEN cancel_requested = 1 THEN attempt ELSE attempt - 1 END,
       due = CASE WHEN cancel_requested = 1 THEN due ELSE coalesce(:due, due) END,
       due_set_at = CASE WHEN :due IS NULL THEN due_set_at ELSE :at END,
       finished_at = CASE WHEN cancel_requested = 1 THEN :at END,
       worker = CASE WHEN cancel_requested = 1 THEN worker END,
       state = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END
 WHERE {{is_running}}

-- name: ended_attempt
-- What an attempt that has just ended was; a release has taken its number back.
SELECT state, CASE WHEN state = 'pending' THEN attempt + 1 ELSE attempt END, started_at
  FROM {{schema}}dbtaskqueue_task WHERE id = :id

-- name: lock_final
SELECT id FROM {{schema}}dbtaskqueue_task
 WHERE id {{in_ids}} AND state IN ('done', 'cancelled', 'abandoned') {{for_update}}

-- name: delete_tasks
DELETE FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}}

-- name: ranks
-- The distinct priorities among what is claimable, one index seek each: tasks due in the future are
-- never walked over.
ranks(level) AS (
    SELECT min(rank) FROM {{schema}}dbtaskqueue_task WHERE {{waiting}}
    UNION ALL
    SELECT (SELECT min(rank) FROM {{schema}}dbtaskqueue_task WHERE {{waiting}} AND rank > ranks.level)
      FROM ranks WHERE ranks.level IS NOT NULL)

-- name: next_due
WITH RECURSIVE {{ranks}}
SELECT min((SELECT min(due) FROM {{schema}}dbtaskqueue_task WHERE {{waiting}} AND rank = ranks.level
                                                                      AND command <= :commands))
  FROM ranks
 WHERE NOT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_queue WHERE name = :queue AND paused = 1)

-- name: waiting_since
-- Since when the longest-waiting due task has waited, also in a paused queue.
WITH RECURSIVE {{ranks}}
SELECT min((SELECT min({{since}})
              FROM (SELECT due, due_set_at FROM {{schema}}dbtaskqueue_task
                     WHERE {{waiting}} AND rank = ranks.level AND due <= :now
                     ORDER BY due, id LIMIT 1000) AS first))
  FROM ranks

-- name: since
-- A task waits since its due time, or since that was decided if this was later: it may be enqueued with a start in the
-- past. So the first due task of a priority may not be the one that has waited longest. Only the first 1,000 are read.
CASE WHEN due_set_at > :now THEN :now WHEN due_set_at > due THEN due_set_at ELSE due END

-- name: newest_ids
-- Walks down the primary key, from one id to another.
SELECT id FROM {{schema}}dbtaskqueue_task {{by_id}}
 WHERE id < :before AND id >= :floor AND queue = :queue AND {{is_listed}}
 ORDER BY id DESC LIMIT :limit

-- name: is_listed
(state = :state OR :state IS NULL)

-- name: more_wait
-- Whether more than :number tasks wait.
SELECT 1 FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}} LIMIT 1 OFFSET :number

-- name: next_functions
-- The first waiting tasks, in the order of a claim. At most :limit rows are read, however many wait.
SELECT function, command, due FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}}
 ORDER BY rank, due, id LIMIT :limit

-- name: held_ids
SELECT id FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE {{is_held}} AND queue = :queue AND id < :before AND state = :state
 ORDER BY id DESC LIMIT :limit

-- name: pending_ids
-- Sorts all waiting tasks, so it is for a queue with few of them.
SELECT id FROM {{schema}}dbtaskqueue_task {{by_claimable}}
 WHERE {{waiting}} AND state = 'pending' AND id < :before
 ORDER BY id DESC LIMIT :limit

-- name: ended_ids
SELECT id FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue AND id < :before
 ORDER BY id DESC LIMIT :limit

-- name: list
SELECT {{task_columns}} FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} ORDER BY id DESC

-- name: prunable
SELECT id FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue
   AND id > :after AND finished_at < :before
 ORDER BY id LIMIT :limit

-- name: count_claimable
SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}}

-- name: count_held
SELECT state, count(*) FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE {{is_held}} AND queue = :queue GROUP BY state

-- name: count_ended
SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue

-- name: done_attempts
-- The newest; they have no rows of their own.
SELECT function, command, 'done', started_at, finished_at, cpu, memory FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue
 ORDER BY id DESC LIMIT :limit

-- name: past_attempts
-- Of the newest tasks in a state.
SELECT function, command, outcome, past.started_at, past.finished_at, past.cpu, past.memory
  FROM (SELECT id, function, command FROM {{schema}}dbtaskqueue_task {{by_ended}}
         WHERE {{is_ended}} AND queue = :queue
         ORDER BY id DESC LIMIT :limit) AS newest
  JOIN {{schema}}dbtaskqueue_attempt AS past ON past.task = newest.id

-- name: open_attempts
-- Of tasks that will be retry_token, if they are among the newest attempts of the database. CROSS JOIN keeps the order of
-- the loops: SQLite 3.46 would scan the tasks and build an index of the attempts for the query.
SELECT function, command, outcome, latest.started_at, latest.finished_at, latest.cpu, latest.memory
  FROM (SELECT task, outcome, started_at, finished_at, cpu, memory FROM {{schema}}dbtaskqueue_attempt
         ORDER BY task DESC, token DESC LIMIT :limit) AS latest
 CROSS JOIN {{schema}}dbtaskqueue_task
 WHERE dbtaskqueue_task.id = latest.task AND queue = :queue AND state IN ('pending', 'reserved', 'running')

-- name: newest
SELECT id, created_at FROM {{schema}}dbtaskqueue_task ORDER BY id DESC LIMIT 1

-- name: highest_id
SELECT coalesce(max(id), 0) FROM {{schema}}dbtaskqueue_task

-- name: fix_due_after_clock_change
UPDATE {{schema}}dbtaskqueue_task {{by_claimable}} SET due = :now, due_set_at = :now
 WHERE state IN ('pending', 'failed') AND due > :now AND due <= due_set_at

-- name: set_paused
INSERT INTO {{schema}}dbtaskqueue_queue (name, paused) VALUES (:queue, :paused)
    ON CONFLICT (name) DO UPDATE SET paused = excluded.paused

-- name: is_left
SELECT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}} AND id <= :highest)
    OR EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_task {{by_held}} WHERE {{is_held}} AND queue = :queue AND id <= :highest)

-- name: purgeable
-- Unordered: for each step, a sort would read and lock all waiting tasks.
SELECT id FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}} AND id <= :highest LIMIT :limit {{for_update}}

-- name: purgeable_held
SELECT id, token, state, attempt, worker, started_at FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE {{is_held}} AND queue = :queue AND id <= :highest ORDER BY id {{for_update}}

-- name: purge
UPDATE {{schema}}dbtaskqueue_task SET token = token + 1, finished_at = :now, worker = NULL, state = 'abandoned'
 WHERE id {{in_ids}} AND state IN ('pending', 'failed', 'reserved', 'running')

-- name: set_oldest
UPDATE {{schema}}dbtaskqueue_schema SET oldest = :oldest

-- name: export_queue
SELECT name, paused FROM {{schema}}dbtaskqueue_queue ORDER BY name

-- name: export_worker
SELECT id, host, pid, boot, namespace, started, lease, beat, created_at, lost_at, executor, queues, functions
  FROM {{schema}}dbtaskqueue_worker ORDER BY id

-- name: export_task
SELECT id, queue, state, rank, due, due_set_at, token, attempt, budget, retry_base, retry_token, worker, batched, isolated,
       cancel_requested, created_at, started_at, finished_at, "key", function, options, meta, payload,
       result, command, suspended, cpu, memory
  FROM {{schema}}dbtaskqueue_task WHERE id > :after ORDER BY id LIMIT :limit

-- name: export_large
SELECT task, name, value FROM {{schema}}dbtaskqueue_large WHERE task > :after AND task <= :last

-- name: export_attempt
SELECT task, token, number, worker, started_at, finished_at, outcome, error, error_type, cpu, memory
  FROM {{schema}}dbtaskqueue_attempt WHERE task > :after AND task <= :last

-- name: load_queue
INSERT INTO {{schema}}dbtaskqueue_queue (name, paused) VALUES (:name, :paused)

-- name: load_worker
INSERT INTO {{schema}}dbtaskqueue_worker
       (id, host, pid, boot, namespace, started, lease, beat, created_at, lost_at, executor, queues, functions)
VALUES (:id, :host, :pid, :boot, :namespace, :started, :lease, :beat, :created_at, :lost_at, :executor, :queues,
        :functions)

-- name: load_task
INSERT INTO {{schema}}dbtaskqueue_task
       (id, queue, state, rank, due, due_set_at, token, attempt, budget, retry_base, retry_token, worker, batched, isolated,
        cancel_requested, created_at, started_at, finished_at, "key", function, options, meta, payload,
        result, command, suspended, cpu, memory)
VALUES (:id, :queue, :state, :rank, :due, :due_set_at, :token, :attempt, :budget, :retry_base, :retry_token, :worker, :batched,
        :isolated, :cancel_requested, :created_at, :started_at, :finished_at, :key, :function, :options, :meta, :payload,
        :result, :command, :suspended, :cpu, :memory)

-- name: load_large
INSERT INTO {{schema}}dbtaskqueue_large (task, name, value) VALUES (:task, :name, :value)

-- name: export_note
SELECT task, token, name, value FROM {{schema}}dbtaskqueue_note WHERE task > :after AND task <= :last

-- name: load_note
INSERT INTO {{schema}}dbtaskqueue_note (task, token, name, value) VALUES (:task, :token, :name, :value)

-- name: load_attempt
INSERT INTO {{schema}}dbtaskqueue_attempt
       (task, token, number, worker, started_at, finished_at, outcome, error, error_type, cpu, memory)
VALUES (:task, :token, :number, :worker, :started_at, :finished_at, :outcome, :error, :error_type, :cpu, :memory)
