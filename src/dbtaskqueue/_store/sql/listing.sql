-- The facet Listing: lists, attempts and counts, for people to read. No query reads more than it needs.

-- name: tasks
SELECT {{task_columns}} FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}} ORDER BY id DESC

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

-- name: more_are_blocked
SELECT 1 FROM {{schema}}dbtaskqueue_task {{by_blocked}} WHERE {{is_blocked}} LIMIT 1 OFFSET :number

-- name: held_ids
SELECT id FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE {{is_held}} AND queue = :queue AND id < :before AND state = :state
 ORDER BY id DESC LIMIT :limit

-- name: pending_ids
-- Sorts all waiting tasks, so it is for a queue with few of them.
SELECT id FROM {{schema}}dbtaskqueue_task {{by_claimable}}
 WHERE {{waiting}} AND state = 'pending' AND id < :before
 ORDER BY id DESC LIMIT :limit

-- name: blocked_ids
SELECT id FROM {{schema}}dbtaskqueue_task {{by_blocked}}
 WHERE {{is_blocked}} AND id < :before AND (state = :state OR :state IS NULL)
 ORDER BY id DESC LIMIT :limit

-- name: ended_ids
SELECT id FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue AND id < :before
 ORDER BY id DESC LIMIT :limit

-- name: attempts
SELECT {{attempt_columns}} FROM {{schema}}dbtaskqueue_attempt WHERE task = :id AND token >= :since
UNION ALL
SELECT {{attempt_columns}} FROM ({{attempt_in_row}}) AS present WHERE token >= :since
 ORDER BY token

-- name: newest_attempts
-- At most one more than :limit, in no order.
SELECT {{attempt_columns}}
  FROM (SELECT * FROM {{schema}}dbtaskqueue_attempt WHERE task = :id AND token < :before
         ORDER BY token DESC LIMIT :limit) AS newest
UNION ALL
SELECT {{attempt_columns}} FROM ({{attempt_in_row}}) AS present WHERE token < :before

-- name: attempt_output
-- Outputs are read separately: a task may have any number of them.
NULL

-- name: outputs
-- Outputs of a task's newest attempts, by token.
SELECT token, value FROM {{schema}}dbtaskqueue_note
 WHERE task = :id AND token >= :since AND token < :before AND name = 'output'
 ORDER BY token DESC LIMIT :limit

-- name: output
SELECT value FROM {{schema}}dbtaskqueue_note WHERE task = :id AND token = :token AND name = 'output'

-- name: done_attempts
-- The newest attempts that made a task done. They have no rows of their own, only the tasks'.
SELECT {{ended_columns}}
  FROM (SELECT function, command, 'done' AS outcome, started_at, finished_at, cpu, memory
          FROM {{schema}}dbtaskqueue_task {{by_ended}}
         WHERE {{is_ended}} AND queue = :queue
         ORDER BY id DESC LIMIT :limit) AS newest

-- name: past_attempts
-- Earlier attempts of the newest tasks in a state.
SELECT {{ended_columns}}
  FROM (SELECT id, function, command FROM {{schema}}dbtaskqueue_task {{by_ended}}
         WHERE {{is_ended}} AND queue = :queue
         ORDER BY id DESC LIMIT :limit) AS newest
  JOIN {{schema}}dbtaskqueue_attempt AS past ON past.task = newest.id

-- name: open_attempts
-- Attempts of unfinished tasks, if they are among the newest of the database. CROSS JOIN keeps the order of the loops:
-- SQLite 3.46 would scan the tasks and build an index of the attempts for the query.
SELECT {{ended_columns}}
  FROM (SELECT task, outcome, started_at, finished_at, cpu, memory FROM {{schema}}dbtaskqueue_attempt
         ORDER BY task DESC, token DESC LIMIT :limit) AS latest
 CROSS JOIN (SELECT id, function, command, queue, state FROM {{schema}}dbtaskqueue_task) AS task
 WHERE task.id = latest.task AND queue = :queue AND state IN ('pending', 'reserved', 'running')

-- name: count_claimable
SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_claimable}} WHERE {{waiting}}

-- name: count_blocked
SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_blocked}} WHERE {{is_blocked}}

-- name: count_held
SELECT state, count(*) FROM {{schema}}dbtaskqueue_task {{by_held}}
 WHERE {{is_held}} AND queue = :queue GROUP BY state

-- name: count_ended
SELECT count(*) FROM {{schema}}dbtaskqueue_task {{by_ended}}
 WHERE {{is_ended}} AND queue = :queue

-- name: waiting_since
-- The time since which the longest-waiting due task has waited, including in a paused queue.
WITH RECURSIVE {{ranks}}
SELECT min((SELECT min({{since}})
              FROM (SELECT due, due_set_at FROM {{schema}}dbtaskqueue_task
                     WHERE {{waiting}} AND rank = ranks.level AND due <= :now
                     ORDER BY due, id LIMIT 1000) AS first))
  FROM ranks

-- name: since
-- A task waits from its due time on, or from the moment when that was set, whichever is later: a task may be enqueued
-- with a start in the past. So the first due task of a priority may not have waited longest. Only 1,000 are read.
CASE WHEN due_set_at > :now THEN :now WHEN due_set_at > due THEN due_set_at ELSE due END

-- name: summaries
SELECT id, queue, state, function, command, attempt, due, started_at, blocked, flow, {{is_suspended}},
       {{task_progress}}
  FROM {{schema}}dbtaskqueue_task WHERE id {{in_ids}}

-- name: next_rank
-- The next priority with a waiting task: one index seek, also over tasks that are due in the future.
SELECT rank FROM {{schema}}dbtaskqueue_task {{by_claimable}}
 WHERE {{waiting}} AND rank > :rank AND rank < :below ORDER BY rank LIMIT 1

-- name: count_until
-- The number of tasks of a priority that are due until then. The order keeps PostgreSQL from reading the whole table.
SELECT count(*)
  FROM (SELECT id FROM {{schema}}dbtaskqueue_task {{by_claimable}}
         WHERE {{waiting}} AND rank = :rank AND due <= :until AND command <= :commands
         ORDER BY due, id LIMIT :limit) AS found

-- name: count_beside
-- The number of tasks of a priority that are due at the same time and have lower ids.
SELECT count(*)
  FROM (SELECT id FROM {{schema}}dbtaskqueue_task {{by_claimable}}
         WHERE {{waiting}} AND rank = :rank AND due = :due AND id < :id AND command <= :commands
         ORDER BY id LIMIT :limit) AS found
