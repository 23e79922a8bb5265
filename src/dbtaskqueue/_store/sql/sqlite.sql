-- SQLite: only what differs from the other engines, and why.

-- name: schema
-- Differs because a file has no schemas: tables have no prefix.

-- name: waiting
queue = :queue AND state IN ('pending', 'failed') AND blocked = 0

-- name: is_blocked
queue = :queue AND blocked <> 0 AND finished_at IS NULL

-- name: is_held_by
worker = :worker AND state IN ('reserved', 'running')

-- name: is_held
state IN ('reserved', 'running')

-- name: is_ended
state = :state AND (finished_at IS NOT NULL OR state = 'failed')

-- name: programs
-- Only here because a server is not upgraded when it is opened. With columns that every version of the schema has.
SELECT pid, boot, namespace, started FROM dbtaskqueue_worker WHERE lost_at IS NULL

-- name: in_ids
-- Differs because SQLite takes a list as JSON.
IN (SELECT value FROM json_each(:ids))

-- name: for_update
-- Differs because there is one writer at a time: no rows are locked.

-- name: for_update_if_free
-- Differs because there is one writer at a time.

-- name: for_share
-- Differs because there is one writer at a time.

-- name: given_queues
-- Differs because SQLite takes a list as JSON.
(SELECT value AS name FROM json_each(:queues))

-- name: done_in_given
queue = given.name AND state = 'done' AND finished_at IS NOT NULL

-- name: cancelled_in_given
queue = given.name AND state = 'cancelled' AND finished_at IS NOT NULL

-- name: abandoned_in_given
queue = given.name AND state = 'abandoned' AND finished_at IS NOT NULL

-- name: by_id
-- Differs because SQLite finds rows by id if no index is allowed.
NOT INDEXED

-- name: by_claimable
-- Differs because SQLite does not find out by itself which partial index has few rows.
INDEXED BY dbtaskqueue_claimable

-- name: by_blocked
INDEXED BY dbtaskqueue_blocked

-- name: by_open_edge
INDEXED BY dbtaskqueue_edge_open

-- name: by_held
INDEXED BY dbtaskqueue_held

-- name: by_ended
INDEXED BY dbtaskqueue_ended

-- name: database_now
-- The clock of the machine that has the file.
:now

-- name: data_version
PRAGMA data_version

-- name: has_schema
-- Differs because each engine has its own catalogue.
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'dbtaskqueue_schema'

-- name: next_task_id
-- Differs because there is one writer at a time: ids need no sequence.
SELECT max(coalesce((SELECT max(id) FROM dbtaskqueue_task), 0), (SELECT highest FROM dbtaskqueue_pruned)) + 1

-- name: insert_next_task
INSERT INTO dbtaskqueue_task (id, {{new_task_columns}}) VALUES (({{next_task_id}}), {{new_task_values}})

-- name: ranks
-- The distinct priorities among waiting tasks, one index seek each: tasks due in the future are never walked over. Each
-- engine finds them in its own way.
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

-- name: claimable
-- Differs because SQLite has one writer: no SKIP LOCKED is needed between reading and claiming. All rows come as one
-- JSON text: fetched one by one, each row would wait for the interpreter lock while tasks run. CROSS JOIN keeps the
-- order of the loops, so that LIMIT stops the scan.
WITH RECURSIVE {{ranks}}
SELECT json_group_array(json_array({{found_columns}}))
  FROM (SELECT task.*
          FROM ranks CROSS JOIN dbtaskqueue_task AS task
         WHERE task.queue = :queue AND task.rank = ranks.level AND task.due <= :now AND task.command <= :commands
           AND task.state IN ('pending', 'failed') AND task.blocked = 0
           AND (task.expires IS NULL OR task.expires > :now)
           AND NOT EXISTS (SELECT 1 FROM dbtaskqueue_queue WHERE name = :queue AND paused = 1)
           AND EXISTS (SELECT 1 FROM dbtaskqueue_worker WHERE id = :worker AND lost_at IS NULL)
         LIMIT :limit)

-- name: found_payload
CAST(payload AS TEXT)

-- name: claim
-- NOT INDEXED makes SQLite find the tasks by id. If ANALYZE ran while no task waited, SQLite 3.46 assumes that the
-- index of waiting tasks is empty, and would read all of them.
UPDATE dbtaskqueue_task NOT INDEXED
   SET state = :state, token = token + 1, worker = :worker, batched = :batched AND NOT isolated,
       attempt = attempt + :start, started_at = CASE WHEN :start THEN :now ELSE started_at END
 WHERE id IN ([[:id,]]) AND state IN ('pending', 'failed')

-- name: finish_batch
-- Differs because one statement over a list of rows takes two thirds of the time of one execution for each row, or of
-- one over a JSON array. Without measurements: two more values for each row would cost a worker 4 %.
UPDATE dbtaskqueue_task SET {{finished_columns}}
  FROM (SELECT column1 AS id, column2 AS token, column3 AS at, column4 AS started_at, column5 AS result
          FROM (VALUES [[(:id, :token, :at, :started_at, :result),]])) AS ended
 WHERE {{is_finished}} AND (dbtaskqueue_task.flow & 1) = 0

-- name: finish_batch_measured
{{finish_rows}} AND (dbtaskqueue_task.flow & 1) = 0

-- name: finish_parents
-- Later statements decide the children.
{{finish_rows}}

-- name: finish_rows
UPDATE dbtaskqueue_task SET {{finished_columns}}, cpu = ended.cpu, memory = ended.memory
  FROM (SELECT column1 AS id, column2 AS token, column3 AS at, column4 AS started_at, column5 AS result, column6 AS cpu,
               column7 AS memory
          FROM (VALUES [[(:id, :token, :at, :started_at, :result, :cpu, :memory),]])) AS ended
 WHERE {{is_finished}}

-- name: finished_columns
state = 'done', finished_at = ended.at, result = ended.result, batched = 0,
       attempt = CASE WHEN state = 'reserved' THEN attempt + 1 ELSE attempt END,
       started_at = CASE WHEN state = 'reserved' THEN ended.started_at ELSE dbtaskqueue_task.started_at END

-- name: is_finished
dbtaskqueue_task.id = ended.id AND dbtaskqueue_task.token = ended.token
   AND (state = 'running' OR state = 'reserved' AND batched = 1)

-- name: insert_task
-- Differs because there is one writer at a time: ids need no sequence.
INSERT INTO dbtaskqueue_task (id, {{new_task_columns}}) VALUES (:id, {{new_task_values}})

-- name: raise_pruned
UPDATE dbtaskqueue_pruned SET highest = max(highest, :id)

-- name: insert_large_result
-- Only for tasks that the batch made done.
INSERT INTO dbtaskqueue_large (task, name, value)
SELECT id, 'result', :value FROM dbtaskqueue_task WHERE id = :task AND state = 'done' AND token = :token
    ON CONFLICT (task, name) DO NOTHING

-- name: error_has
-- Differs because each engine has its own function that compares a part of a text byte by byte; the same below.
instr({{task_error}}, :value_n) > 0

-- name: payload_has
instr({{task_payload}}, :value_n) > 0

-- name: function_has
instr(function, :value_n) > 0

-- name: key_has
instr("key", :value_n) > 0

-- name: options_have
instr(options, :value_n) > 0

-- name: where_function_starts
-- Differs because LIKE ignores case on some engines, and length() counts bytes on others.
substr(function, 1, length(:value_n)) = :value_n

-- name: by_action_id
-- Differs because SQLite walks along the ids if no index is allowed.
NOT INDEXED

-- name: by_operation_id
NOT INDEXED
