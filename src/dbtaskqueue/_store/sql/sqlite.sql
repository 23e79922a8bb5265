-- SQLite: only what differs from the other engines, and why.

-- name: has_schema
-- Differs because each engine has its own catalogue.
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'dbtaskqueue_schema'

-- name: next_task_id
-- Differs because there is one writer at a time: ids need no sequence.
SELECT max(coalesce((SELECT max(id) FROM dbtaskqueue_task), 0), (SELECT highest FROM dbtaskqueue_pruned)) + 1

-- name: insert_next_task
INSERT INTO dbtaskqueue_task
       (id, queue, state, rank, due, decided_at, budget, created_at, key, function, policy, payload)
VALUES (({{next_task_id}}), :queue, 'pending', :rank, :due, :created_at, :budget, :created_at, :key, :function,
        :policy, :payload)

-- name: raise_pruned
UPDATE dbtaskqueue_pruned SET highest = max(highest, :id)

-- name: ranks
-- The distinct priorities among what is claimable, one index seek each: tasks due in the future are
-- never walked over.
ranks(rank) AS (
    SELECT min(rank) FROM dbtaskqueue_task WHERE queue = :queue AND state IN ('pending', 'failed')
    UNION ALL
    SELECT (SELECT min(task.rank) FROM dbtaskqueue_task AS task
             WHERE task.queue = :queue AND task.state IN ('pending', 'failed') AND task.rank > ranks.rank)
      FROM ranks WHERE ranks.rank IS NOT NULL)

-- name: claimable
-- Differs because SQLite has one writer: no SKIP LOCKED is needed between looking and claiming. All rows come
-- as one JSON text: fetched one by one, each row would wait for the interpreter lock while tasks run.
-- CROSS JOIN fixes the order of the loops, so that LIMIT stops the scan.
WITH RECURSIVE {{ranks}}
SELECT json_group_array(json_array(id, rank, due, token, attempt, budget, base, solo, created_at, started_at,
                                   key, function, policy, CAST(payload AS TEXT)))
  FROM (SELECT task.*
          FROM ranks CROSS JOIN dbtaskqueue_task AS task
         WHERE task.queue = :queue AND task.rank = ranks.rank AND task.due <= :now
           AND task.state IN ('pending', 'failed')
           AND NOT EXISTS (SELECT 1 FROM dbtaskqueue_queue WHERE name = :queue AND paused = 1)
           AND EXISTS (SELECT 1 FROM dbtaskqueue_worker WHERE id = :worker AND lost_at IS NULL)
         LIMIT :limit)

-- name: claim
UPDATE dbtaskqueue_task
   SET state = :state, token = token + 1, worker = :worker, shared = :shared AND NOT solo,
       attempt = attempt + :begin, started_at = CASE WHEN :begin THEN :now ELSE started_at END
 WHERE id IN (SELECT value FROM json_each(:ids)) AND state IN ('pending', 'failed')

-- name: next_due
WITH RECURSIVE {{ranks}}
SELECT min((SELECT min(task.due) FROM dbtaskqueue_task AS task
             WHERE task.queue = :queue AND task.state IN ('pending', 'failed') AND task.rank = ranks.rank))
  FROM ranks
 WHERE :even_paused OR NOT EXISTS (SELECT 1 FROM dbtaskqueue_queue WHERE name = :queue AND paused = 1)

-- name: finish_batch
-- Differs because one statement over a JSON array takes half as long as one execution for each row.
UPDATE dbtaskqueue_task
   SET state = 'done', finished_at = ended.value ->> 2, result = ended.value ->> 4, shared = 0,
       attempt = CASE WHEN state = 'reserved' THEN attempt + 1 ELSE attempt END,
       started_at = CASE WHEN state = 'reserved' THEN ended.value ->> 3 ELSE started_at END
  FROM json_each(:ends) AS ended
 WHERE dbtaskqueue_task.id = ended.value ->> 0 AND token = ended.value ->> 1
   AND (state = 'running' OR state = 'reserved' AND shared = 1)

-- name: fail
-- Differs because UPDATE … RETURNING is not had by every engine.
UPDATE dbtaskqueue_task
   SET state = CASE WHEN cancel_requested THEN 'cancelled' WHEN :final THEN 'abandoned' ELSE 'failed' END,
       due = CASE WHEN cancel_requested OR :final THEN due ELSE coalesce(:due, due) END, decided_at = :at,
       finished_at = CASE WHEN cancel_requested OR :final THEN :at END,
       worker = CASE WHEN cancel_requested OR :final THEN worker END
 WHERE id = :id AND token = :token AND state = 'running'
RETURNING state, attempt, started_at

-- name: release_running
-- The attempt that had begun is not counted, but for a task that was asked to end: that one is cancelled.
UPDATE dbtaskqueue_task
   SET state = CASE WHEN cancel_requested THEN 'cancelled' ELSE 'pending' END,
       attempt = CASE WHEN cancel_requested THEN attempt ELSE attempt - 1 END,
       due = CASE WHEN cancel_requested THEN due ELSE coalesce(:due, due) END,
       decided_at = CASE WHEN :due IS NULL THEN decided_at ELSE :at END,
       finished_at = CASE WHEN cancel_requested THEN :at END,
       worker = CASE WHEN cancel_requested THEN worker END
 WHERE id = :id AND token = :token AND state = 'running'
RETURNING state, CASE WHEN state = 'pending' THEN attempt + 1 ELSE attempt END, started_at

-- name: held_ids
-- Differs because SQLite's planner is told which partial index holds the few rows in question.
SELECT id FROM dbtaskqueue_task INDEXED BY dbtaskqueue_held
 WHERE state IN ('reserved', 'running') AND queue = :queue AND id < :before AND (state = :state OR :state IS NULL)
 ORDER BY id DESC LIMIT :limit

-- name: pending_ids
SELECT id FROM dbtaskqueue_task INDEXED BY dbtaskqueue_claimable
 WHERE state IN ('pending', 'failed') AND state = 'pending' AND queue = :queue AND id < :before
 ORDER BY id DESC LIMIT :limit

-- name: ended_ids
SELECT id FROM dbtaskqueue_task INDEXED BY dbtaskqueue_ended
 WHERE (finished_at IS NOT NULL OR state = 'failed') AND state = :state AND queue = :queue AND id < :before
 ORDER BY id DESC LIMIT :limit

-- name: list
SELECT {{task_columns}} FROM dbtaskqueue_task WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id DESC

-- name: prunable
SELECT id FROM dbtaskqueue_task INDEXED BY dbtaskqueue_ended
 WHERE (finished_at IS NOT NULL OR state = 'failed') AND state = :state AND queue = :queue
   AND id > :after AND finished_at < :before
 ORDER BY id LIMIT :limit

-- name: count_claimable
SELECT count(*) FROM dbtaskqueue_task INDEXED BY dbtaskqueue_claimable
 WHERE queue = :queue AND state IN ('pending', 'failed')

-- name: count_held
SELECT state, count(*) FROM dbtaskqueue_task INDEXED BY dbtaskqueue_held
 WHERE state IN ('reserved', 'running') AND queue = :queue GROUP BY state

-- name: count_ended
SELECT count(*) FROM dbtaskqueue_task INDEXED BY dbtaskqueue_ended
 WHERE queue = :queue AND state = :state AND (finished_at IS NOT NULL OR state = 'failed')

-- name: newest
SELECT id, created_at FROM dbtaskqueue_task ORDER BY id DESC LIMIT 1

-- name: hasten
UPDATE dbtaskqueue_task INDEXED BY dbtaskqueue_claimable SET due = :now
 WHERE state IN ('pending', 'failed') AND due > :now AND due <= decided_at

-- name: set_paused
INSERT INTO dbtaskqueue_queue (name, paused) VALUES (:queue, :paused)
    ON CONFLICT (name) DO UPDATE SET paused = excluded.paused

-- name: highest_id
SELECT coalesce(max(id), 0) FROM dbtaskqueue_task

-- name: purge_claimable
UPDATE dbtaskqueue_task SET state = 'abandoned', token = token + 1, finished_at = :now, worker = NULL
 WHERE id IN (SELECT id FROM dbtaskqueue_task INDEXED BY dbtaskqueue_claimable
               WHERE queue = :queue AND state IN ('pending', 'failed') AND id <= :highest LIMIT :limit)

-- name: purge_running_attempts
INSERT INTO dbtaskqueue_attempt (task, token, number, worker, started_at, finished_at, outcome, error)
SELECT id, token, attempt, worker, started_at, :now, 'abandoned', 'purged while it ran'
  FROM dbtaskqueue_task INDEXED BY dbtaskqueue_held
 WHERE state IN ('reserved', 'running') AND state = 'running' AND queue = :queue AND id <= :highest

-- name: purge_held
UPDATE dbtaskqueue_task SET state = 'abandoned', token = token + 1, finished_at = :now, worker = NULL
 WHERE id IN (SELECT id FROM dbtaskqueue_task INDEXED BY dbtaskqueue_held
               WHERE state IN ('reserved', 'running') AND queue = :queue AND id <= :highest)
