-- The facet Queues.

-- name: queues
-- One index seek for each name, however many tasks a queue has. Only held tasks are read row by row; they are few.
WITH RECURSIVE waiting_in(name) AS (
    SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE state IN ('pending', 'failed') AND blocked = 0
    UNION ALL
    SELECT (SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_claimable}}
             WHERE state IN ('pending', 'failed') AND blocked = 0 AND queue > waiting_in.name)
      FROM waiting_in WHERE waiting_in.name IS NOT NULL),
blocked_in_queue(name) AS (
    SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_blocked}} WHERE blocked <> 0 AND finished_at IS NULL
    UNION ALL
    SELECT (SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_blocked}}
             WHERE blocked <> 0 AND finished_at IS NULL AND queue > blocked_in_queue.name)
      FROM blocked_in_queue WHERE blocked_in_queue.name IS NOT NULL),
ended_in(name) AS (
    SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_ended}} WHERE finished_at IS NOT NULL OR state = 'failed'
    UNION ALL
    SELECT (SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_ended}}
             WHERE (finished_at IS NOT NULL OR state = 'failed') AND queue > ended_in.name)
      FROM ended_in WHERE ended_in.name IS NOT NULL),
scheduled_in(name) AS (
    SELECT min(queue) FROM {{schema}}dbtaskqueue_schedule
    UNION ALL
    SELECT (SELECT min(queue) FROM {{schema}}dbtaskqueue_schedule WHERE queue > scheduled_in.name)
      FROM scheduled_in WHERE scheduled_in.name IS NOT NULL)
SELECT name FROM waiting_in WHERE name IS NOT NULL
UNION
SELECT name FROM blocked_in_queue WHERE name IS NOT NULL
UNION
SELECT name FROM ended_in WHERE name IS NOT NULL
UNION
SELECT queue FROM {{schema}}dbtaskqueue_task {{by_held}} WHERE state IN ('reserved', 'running')
UNION
SELECT name FROM scheduled_in WHERE name IS NOT NULL
UNION
SELECT name FROM {{schema}}dbtaskqueue_queue WHERE paused = 1

-- name: final_counts
-- The final tasks of some queues.
SELECT given.name,
       (SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_ended}} WHERE {{done_in_given}}),
       (SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_ended}} WHERE {{cancelled_in_given}}),
       (SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_ended}} WHERE {{abandoned_in_given}})
  FROM {{given_queues}} AS given

-- name: paused_queues
SELECT name FROM {{schema}}dbtaskqueue_queue WHERE paused = 1

-- name: is_paused
SELECT 1 FROM {{schema}}dbtaskqueue_queue WHERE name = :queue AND paused = 1

-- name: set_paused
INSERT INTO {{schema}}dbtaskqueue_queue (name, paused) VALUES (:queue, :paused)
    ON CONFLICT (name) DO UPDATE SET paused = excluded.paused

-- name: queue_counts
-- Counts by index only, without reading tasks: the waiting ones, pending or failed, the blocked ones, all failed ones,
-- and the held ones. Parts that overlap are told apart by the caller.
WITH RECURSIVE ended_in(name) AS (
    SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_ended}} WHERE finished_at IS NOT NULL OR state = 'failed'
    UNION ALL
    SELECT (SELECT min(queue) FROM {{schema}}dbtaskqueue_task {{by_ended}}
             WHERE (finished_at IS NOT NULL OR state = 'failed') AND queue > ended_in.name)
      FROM ended_in WHERE ended_in.name IS NOT NULL)
SELECT queue, 'waiting', count(*) FROM {{schema}}dbtaskqueue_task {{by_claimable}}
 WHERE state IN ('pending', 'failed') AND blocked = 0 GROUP BY queue
UNION ALL
SELECT queue, 'blocked', count(*) FROM {{schema}}dbtaskqueue_task {{by_blocked}}
 WHERE blocked <> 0 AND finished_at IS NULL GROUP BY queue
UNION ALL
SELECT name, 'failed', (SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_ended}}
                         WHERE queue = name AND state = 'failed' AND (finished_at IS NOT NULL OR state = 'failed'))
  FROM ended_in WHERE name IS NOT NULL
UNION ALL
SELECT queue, state, count(*) FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE state IN ('reserved', 'running') GROUP BY queue, state
