-- The facet Schedules. A tick is made by compare-and-set: of all workers that see a schedule due, one moves its next_at.
-- The primary key of dbtaskqueue_tick is the second guard: it holds even if next_at was set back with the clock.
--
-- Locks are taken in this order: schedules, by queue and name; then what lock_previous locks, by id; then as in
-- dependencies.sql. What they protect is read in later statements.

-- name: database_time
-- One clock decides ticks, so that a worker with a fast clock makes none of them early.
SELECT {{database_now}}

-- name: outlook
-- One seek each, except for the last one, which reads the held tasks.
SELECT {{database_now}}, (SELECT min(next_at) FROM {{schema}}dbtaskqueue_schedule WHERE paused = 0),
       (SELECT min(parent) FROM {{schema}}dbtaskqueue_undecided), (SELECT min(expires) FROM {{schema}}dbtaskqueue_expiry),
       (SELECT next_at FROM {{schema}}dbtaskqueue_duty WHERE name = 'minute'),
       (SELECT max(id) FROM {{schema}}dbtaskqueue_task),
       (SELECT created_at FROM {{schema}}dbtaskqueue_task ORDER BY id DESC LIMIT 1),
       (SELECT min(worker) FROM {{schema}}dbtaskqueue_task {{by_held}} WHERE {{is_orphaned}})

-- name: due_schedules
SELECT {{stored_schedule_columns}} FROM {{schema}}dbtaskqueue_schedule
 WHERE paused = 0 AND next_at <= :now ORDER BY next_at LIMIT :limit

-- name: misplaced_schedules
-- Schedules whose next tick may be too late, if the clock was set back.
SELECT {{stored_schedule_columns}} FROM {{schema}}dbtaskqueue_schedule
 WHERE paused = 0 AND (last_at > :now OR last_at IS NULL)

-- name: schedules
SELECT {{stored_schedule_columns}} FROM {{schema}}dbtaskqueue_schedule ORDER BY queue, name

-- name: schedules_of_queue
SELECT {{stored_schedule_columns}} FROM {{schema}}dbtaskqueue_schedule WHERE queue = :queue ORDER BY name

-- name: schedule
SELECT {{stored_schedule_columns}} FROM {{schema}}dbtaskqueue_schedule WHERE queue = :queue AND name = :name

-- name: lock_schedule
{{schedule}} {{for_update}}

-- name: insert_schedule
INSERT INTO {{schema}}dbtaskqueue_schedule ({{stored_schedule_columns}}) VALUES ({{stored_schedule_values}})
    ON CONFLICT (queue, name) DO NOTHING

-- name: declare_schedule
-- The columns that a declaration owns. Ticks own the times and counts. The operator owns "paused".
UPDATE {{schema}}dbtaskqueue_schedule
   SET target = :target, cron = :cron, every = :every, timezone = :timezone, overlap = :overlap, catch_up = :catch_up,
       catch_up_window = :catch_up_window, jitter = :jitter, declared_at = :declared_at
 WHERE queue = :queue AND name = :name

-- name: settle_schedule
UPDATE {{schema}}dbtaskqueue_schedule
   SET paused = :paused, next_at = :next_at, last_at = coalesce(:last_at, last_at), missed = missed + :missed
 WHERE queue = :queue AND name = :name

-- name: delete_schedule
-- Its ticks stay until they are pruned: a schedule of the same name must not repeat them.
DELETE FROM {{schema}}dbtaskqueue_schedule WHERE queue = :queue AND name = :name

-- name: move_schedule
-- The compare-and-set. Zero rows: another worker has made these ticks, or the schedule was changed, paused or removed.
UPDATE {{schema}}dbtaskqueue_schedule SET next_at = :next_at, last_at = coalesce(:last_at, last_at)
 WHERE queue = :queue AND name = :name AND next_at = :seen AND paused = 0

-- name: insert_tick
-- Zero rows: this tick has a row already.
INSERT INTO {{schema}}dbtaskqueue_tick ({{stored_tick_columns}}) VALUES ({{stored_tick_values}})
    ON CONFLICT (queue, schedule, at) DO NOTHING

-- name: complete_tick
UPDATE {{schema}}dbtaskqueue_tick SET outcome = :outcome, task = :task
 WHERE queue = :queue AND schedule = :schedule AND at = :at

-- name: count_ticks
UPDATE {{schema}}dbtaskqueue_schedule
   SET last_task = :last_task, skipped = skipped + :skipped, missed = missed + :missed, skips_in_a_row = :skips_in_a_row
 WHERE queue = :queue AND name = :name

-- name: lock_previous
-- The previous tasks of schedules, and the parents that these still wait for.
SELECT id, state, blocked, flow FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} ORDER BY id {{for_update}}

-- name: blockers
SELECT child, parent FROM {{schema}}dbtaskqueue_edge WHERE child {{in_ids}} AND met IS NULL ORDER BY child, place

-- name: take_newer_tick
UPDATE {{schema}}dbtaskqueue_task SET options = :options, due = :due, due_set_at = :now
 WHERE id = :id AND (blocked & 1) = 1 AND finished_at IS NULL

-- name: ticks
SELECT {{stored_tick_columns}} FROM {{schema}}dbtaskqueue_tick
 WHERE queue = :queue AND schedule = :schedule ORDER BY at DESC LIMIT :limit

-- name: first_ticks
-- The moment of the last of the first ticks after a moment; NULL if there are none.
SELECT max(at) FROM (SELECT at FROM {{schema}}dbtaskqueue_tick WHERE at > :after ORDER BY at LIMIT :limit) AS first

-- name: delete_ticks
DELETE FROM {{schema}}dbtaskqueue_tick WHERE at <= :last

-- name: export_schedule
SELECT {{stored_schedule_columns}} FROM {{schema}}dbtaskqueue_schedule ORDER BY queue, name

-- name: export_tick
SELECT {{stored_tick_columns}} FROM {{schema}}dbtaskqueue_tick WHERE at > :after AND at <= :last
