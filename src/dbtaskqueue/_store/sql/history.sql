-- The facet History: what attempts did and how queues were, by time; retention.

-- name: write_history
-- Overwrites, so that it may be repeated after a lost answer.
INSERT INTO {{schema}}dbtaskqueue_history ({{stored_history_columns}}) VALUES ({{stored_history_values}})
    ON CONFLICT (period, at, worker, queue, function) DO UPDATE
   SET done = excluded.done, failed = excluded.failed, abandoned = excluded.abandoned, cancelled = excluded.cancelled,
       lost = excluded.lost, released = excluded.released, seconds = excluded.seconds, cpu = excluded.cpu,
       memory = excluded.memory, run_times = excluded.run_times, wait_times = excluded.wait_times

-- name: new_history
-- A row that is added to afterwards, unless it exists.
INSERT INTO {{schema}}dbtaskqueue_history ({{stored_history_columns}}) VALUES ({{stored_history_values}})
    ON CONFLICT (period, at, worker, queue, function) DO NOTHING

-- name: is_history_row
period = :period AND at = :at AND worker = :worker AND queue = :queue AND function = :function

-- name: lock_history
SELECT {{stored_history_columns}} FROM {{schema}}dbtaskqueue_history WHERE {{is_history_row}} {{for_update}}

-- name: old_history
-- Locked: its writer must not overwrite a row between this read and the row's deletion.
SELECT {{stored_history_columns}} FROM {{schema}}dbtaskqueue_history
 WHERE period = :period AND at < :before
 ORDER BY period, at, worker, queue, function LIMIT :limit {{for_update}}

-- name: delete_history
DELETE FROM {{schema}}dbtaskqueue_history WHERE {{is_history_row}}

-- name: has_old_history
SELECT 1 FROM {{schema}}dbtaskqueue_history WHERE period = :period AND at < :before LIMIT 1

-- name: counted_functions
SELECT queue, function FROM {{schema}}dbtaskqueue_history WHERE period = :period AND at = :at AND worker = 0

-- name: history
SELECT {{stored_history_columns}} FROM {{schema}}dbtaskqueue_history
 WHERE period = :period AND at >= :start AND (queue = :queue OR :queue IS NULL)
   AND (function = :function OR :function IS NULL) AND (worker = :worker OR :worker IS NULL)

-- name: all_history
SELECT {{stored_history_columns}} FROM {{schema}}dbtaskqueue_history

-- name: write_sample
INSERT INTO {{schema}}dbtaskqueue_sample ({{stored_sample_columns}}) VALUES ({{stored_sample_values}})
    ON CONFLICT (period, at, queue) DO UPDATE
   SET pending = excluded.pending, failed = excluded.failed, reserved = excluded.reserved, running = excluded.running,
       blocked = excluded.blocked, oldest_due = excluded.oldest_due, workers = excluded.workers

-- name: lock_sample
SELECT {{stored_sample_columns}} FROM {{schema}}dbtaskqueue_sample
 WHERE period = :period AND at = :at AND queue = :queue {{for_update}}

-- name: old_samples
SELECT {{stored_sample_columns}} FROM {{schema}}dbtaskqueue_sample
 WHERE period = :period AND at < :before ORDER BY period, at, queue LIMIT :limit {{for_update}}

-- name: delete_sample
DELETE FROM {{schema}}dbtaskqueue_sample WHERE period = :period AND at = :at AND queue = :queue

-- name: has_old_samples
SELECT 1 FROM {{schema}}dbtaskqueue_sample WHERE period = :period AND at < :before LIMIT 1

-- name: samples
SELECT {{stored_sample_columns}} FROM {{schema}}dbtaskqueue_sample
 WHERE period = :period AND at >= :start AND (queue = :queue OR :queue IS NULL)

-- name: new_duty
INSERT INTO {{schema}}dbtaskqueue_duty (name, next_at, turns) VALUES (:name, :next, 1) ON CONFLICT (name) DO NOTHING

-- name: take_turn
UPDATE {{schema}}dbtaskqueue_duty SET next_at = :next, turns = turns + 1
 WHERE name = :name AND (next_at <= :now OR next_at > :latest)

-- name: retentions
SELECT {{stored_retention_columns}} FROM {{schema}}dbtaskqueue_retention ORDER BY queue

-- name: set_retention
INSERT INTO {{schema}}dbtaskqueue_retention ({{stored_retention_columns}}) VALUES ({{stored_retention_values}})
    ON CONFLICT (queue) DO UPDATE
   SET done = excluded.done, cancelled = excluded.cancelled, abandoned = excluded.abandoned, most = excluded.most

-- name: delete_retention
DELETE FROM {{schema}}dbtaskqueue_retention WHERE queue = :queue

-- name: oldest_ended
SELECT id, created_at, finished_at FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue AND id > :after
 ORDER BY id LIMIT :limit
