-- PostgreSQL: only what differs from the other engines, and why.

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

-- name: is_reserved
-- Differs because PostgreSQL would use the index of held tasks to find one whose id it knows. If the table was analyzed
-- while nothing ran, that index seems empty, and each start and finish would walk through all held tasks.
id = :id AND token = :token AND CASE state WHEN 'reserved' THEN true ELSE false END

-- name: is_running
-- Differs because of that index, too.
id = :id AND token = :token AND CASE state WHEN 'running' THEN true ELSE false END

-- name: is_started
-- Differs because of that index, too.
id = :id AND token = :token AND CASE state WHEN 'running' THEN true WHEN 'reserved' THEN batched = 1 ELSE false END

-- name: in_ids
-- Differs because PostgreSQL takes a list as an array.
= ANY(:ids)

-- name: for_update
FOR UPDATE

-- name: for_update_if_free
FOR UPDATE SKIP LOCKED

-- name: for_share
FOR SHARE

-- name: is_listed
-- Differs because PostgreSQL might estimate that a partial index on the state is small, and sort all of its rows.
CASE WHEN state = :state OR :state IS NULL THEN true ELSE false END

-- name: given_queues
(SELECT value AS name FROM json_array_elements_text(CAST(:queues AS json)))

-- name: done_in_given
queue = given.name AND state = 'done' AND finished_at IS NOT NULL

-- name: cancelled_in_given
queue = given.name AND state = 'cancelled' AND finished_at IS NOT NULL

-- name: abandoned_in_given
queue = given.name AND state = 'abandoned' AND finished_at IS NOT NULL

-- name: by_id
-- Differs because PostgreSQL has no way to name the index; the same below.

-- name: by_claimable

-- name: by_blocked

-- name: by_open_edge

-- name: by_held

-- name: by_ended

-- name: ranks
-- Differs because claimed tasks stay in the index while an old transaction could still see them. The scan that finds a
-- priority also finds its first task, and a claim starts there instead of walking over them again.
ranks(level, first_due, first_id) AS (
    (SELECT rank, due, id FROM {{schema}}dbtaskqueue_task
      WHERE {{waiting}} AND (rank, due, id) >= (:floor_rank, :floor_due, :floor_id) AND command <= :commands
      ORDER BY rank, due, id LIMIT 1)
    UNION ALL
    SELECT next.rank, next.due, next.id
      FROM ranks CROSS JOIN LATERAL (
           SELECT rank, due, id FROM {{schema}}dbtaskqueue_task
            WHERE {{waiting}} AND rank > ranks.level AND command <= :commands
            ORDER BY rank, due, id LIMIT 1) AS next)

-- name: next_due
-- The query ranks has the first due time of each priority.
WITH RECURSIVE {{ranks}}
SELECT min(first_due) FROM ranks
 WHERE NOT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_queue WHERE name = :queue AND paused = 1)

-- name: database_now
-- Not now(), which is when the transaction started.
CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)

-- name: has_schema
-- Differs because each engine has its own catalogue. to_regclass() is not used: it may return a state from before the
-- lock on the schema.
SELECT 1 FROM pg_catalog.pg_class AS class JOIN pg_catalog.pg_namespace AS space ON space.oid = class.relnamespace
 WHERE space.nspname = :name AND class.relname = 'dbtaskqueue_schema'

-- name: grant_to_create
--- The right that migrate needs, as a statement for an administrator.
SELECT current_user, 'GRANT CREATE ON DATABASE ' || quote_ident(current_database()) || ' TO ' || quote_ident(current_user)

-- name: grants_to_use
--- The rights that a program needs, as statements for an administrator.
SELECT current_user, string_agg(
           'GRANT ' || rights || ' SCHEMA ' || quote_ident(:schema) || ' TO ' || quote_ident(current_user), '; ')
  FROM unnest(ARRAY['USAGE ON', 'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN', 'USAGE ON ALL SEQUENCES IN'])
    AS rights

-- name: identity
SELECT identity FROM {{schema}}dbtaskqueue_schema

-- name: lock_schema
-- Differs because each engine has a lock of its own for changes of the schema.
SELECT pg_advisory_xact_lock(hashtextextended(:table, 0))

-- name: is_waiting
-- Whether a waiter's row is valid, and the session that listens to its channel is alive. That session holds an advisory
-- lock on the channel. A session that can get this lock knows that the waiter's session has ended, and releases it.
CASE WHEN good_until <= statement_timestamp() THEN false
     WHEN pg_try_advisory_lock(hashtextextended(channel, 0))
     THEN NOT pg_advisory_unlock(hashtextextended(channel, 0))
     ELSE true END

-- name: hold_channel
SELECT pg_advisory_lock(hashtextextended(:channel, 0))

-- name: stamp
-- Distinguishes the registrations of a waiter, independent of the session's time zone.
to_char(good_until AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')

-- name: wake
-- The first sender deletes the waiter's row: one notification for each sleep, not for each task.
DELETE FROM {{schema}}dbtaskqueue_waiter AS waiter
 USING (SELECT queue, channel FROM {{schema}}dbtaskqueue_waiter
         WHERE queue = :queue AND {{is_waiting}}
         LIMIT :wake FOR UPDATE SKIP LOCKED) AS chosen
 WHERE waiter.queue = chosen.queue AND waiter.channel = chosen.channel
RETURNING pg_notify(waiter.channel, waiter.queue || ' ' || {{stamp}})

-- name: wake_for
-- One waiter for each task that is due soon; all waiters for a command line, which not every worker may run.
DELETE FROM {{schema}}dbtaskqueue_waiter AS waiter
 USING (SELECT found.queue, found.channel
          FROM (SELECT queue, CASE WHEN max(command) = 0 THEN count(*) END AS tasks
                  FROM {{schema}}dbtaskqueue_task
                 WHERE id = ANY(:ids) AND state IN ('pending', 'failed') AND blocked = 0 AND due <= :soon
                 GROUP BY queue) AS due
         CROSS JOIN LATERAL (
               SELECT queue, channel FROM {{schema}}dbtaskqueue_waiter
                WHERE queue = due.queue AND {{is_waiting}}
                LIMIT due.tasks FOR UPDATE SKIP LOCKED) AS found) AS chosen
 WHERE waiter.queue = chosen.queue AND waiter.channel = chosen.channel
RETURNING pg_notify(waiter.channel, waiter.queue || ' ' || {{stamp}})

-- name: notify
SELECT pg_notify(channel, '')
  FROM (SELECT channel FROM {{schema}}dbtaskqueue_waiter
         WHERE queue = :queue AND {{is_waiting}} LIMIT :wake) AS chosen

-- name: wait
-- The table is unlogged, so this needs no flush of the log.
INSERT INTO {{schema}}dbtaskqueue_waiter (queue, channel, good_until)
SELECT queue, :channel, statement_timestamp() + CAST(:seconds AS double precision) * interval '1 second'
  FROM unnest(CAST(:queues AS text[])) AS queue
    ON CONFLICT (queue, channel) DO UPDATE SET good_until = excluded.good_until
RETURNING queue, {{stamp}}

-- name: stop_waiting
DELETE FROM {{schema}}dbtaskqueue_waiter WHERE queue = ANY(:queues) AND channel = :channel

-- name: forget_dead_waiters
DELETE FROM {{schema}}dbtaskqueue_waiter AS waiter
 USING (SELECT queue, channel FROM {{schema}}dbtaskqueue_waiter
         WHERE NOT {{is_waiting}}
         LIMIT :limit FOR UPDATE SKIP LOCKED) AS dead
 WHERE waiter.queue = dead.queue AND waiter.channel = dead.channel

-- name: insert_task
-- Differs because a refused insert would abort the whole transaction, which may be a user's.
INSERT INTO {{schema}}dbtaskqueue_task ({{new_task_columns}}) VALUES ({{new_task_values}})
   ON CONFLICT (queue, "key") WHERE "key" IS NOT NULL AND finished_at IS NULL DO NOTHING
RETURNING id

-- name: enqueue_one
-- Differs because one statement saves the round trips of a transaction.
WITH task AS ({{insert_task}}),
     large AS (INSERT INTO {{schema}}dbtaskqueue_large (task, name, value)
               SELECT id, 'payload', CAST(:large AS text) FROM task WHERE CAST(:large AS text) IS NOT NULL),
     woken AS ({{wake}})
SELECT id, (SELECT count(*) FROM woken) FROM task

-- name: enqueue_many
WITH given AS (SELECT payload, large, number
                 FROM unnest(CAST(:payloads AS text[]), CAST(:larges AS text[])) WITH ORDINALITY
                   AS given(payload, large, number)),
     numbered AS MATERIALIZED (
         SELECT nextval((SELECT CAST(pg_get_serial_sequence(:table, 'id') AS regclass))) AS id, payload, large
           FROM (SELECT * FROM given ORDER BY number) AS _),
     task AS (INSERT INTO {{schema}}dbtaskqueue_task (id, {{new_task_columns}})
              SELECT id, {{many_task_values}} FROM numbered),
     large AS (INSERT INTO {{schema}}dbtaskqueue_large (task, name, value)
               SELECT id, 'payload', large FROM numbered WHERE large IS NOT NULL),
     woken AS ({{wake}})
SELECT id, (SELECT count(*) FROM woken) FROM numbered ORDER BY id

-- name: many_payload
-- The payload of each row of the array.
payload

-- name: many_budget
-- PostgreSQL cannot tell the type of a NULL from the column.
CAST(:budget AS bigint)


-- name: many_key
-- Only a single task has a key.
NULL

-- name: finish_rows
UPDATE {{schema}}dbtaskqueue_task AS task
   SET finished_at = ending.at, result = ending.result, cpu = ending.cpu, memory = ending.memory, batched = 0,
       attempt = CASE WHEN state = 'reserved' THEN attempt + 1 ELSE attempt END,
       started_at = CASE WHEN state = 'reserved' THEN ending.started_at ELSE task.started_at END,
       state = 'done'
  FROM unnest(CAST(:end_ids AS bigint[]), CAST(:tokens AS bigint[]), CAST(:ats AS bigint[]),
              CAST(:started_ats AS bigint[]), CAST(:results AS text[]), CAST(:larges AS text[]),
              CAST(:cpus AS bigint[]), CAST(:memories AS bigint[]))
       AS ending(id, token, at, started_at, result, large, cpu, memory)
 WHERE task.id = ending.id AND task.token = ending.token
   AND CASE task.state WHEN 'running' THEN true WHEN 'reserved' THEN task.batched = 1 ELSE false END

-- name: finish_all
{{finish_rows}} AND (task.flow & 1) = 0 RETURNING task.id, ending.large

-- name: finish_all_parents
{{finish_rows}} RETURNING task.id, ending.large

-- name: insert_large_results
INSERT INTO {{schema}}dbtaskqueue_large (task, name, value)
SELECT id, 'result', large FROM ended WHERE large IS NOT NULL
    ON CONFLICT (task, name) DO NOTHING

-- name: finish_batch
-- Differs because one statement over arrays is one round trip.
WITH ended AS ({{finish_all}}), large AS ({{insert_large_results}})
SELECT count(*) FROM ended

-- name: finish_parents
-- Later statements decide the children.
WITH ended AS ({{finish_all_parents}}), large AS ({{insert_large_results}})
SELECT count(*) FROM ended

-- name: exchange
-- Differs because PostgreSQL can store ends and claim the next tasks in one statement. The worker's row is locked, so
-- that a rescue of this worker waits for this claim, or this claim sees that it is lost. The ids go through an array, so
-- that no plan ever reads the whole table. The rows are locked, so their state needs no second check.
WITH RECURSIVE ended AS ({{finish_all}}),
     large AS ({{insert_large_results}}),
     {{ranks}},
     member AS MATERIALIZED (
         SELECT id FROM {{schema}}dbtaskqueue_worker WHERE id = :worker AND lost_at IS NULL FOR SHARE),
     chosen AS MATERIALIZED (
         SELECT task.id
           FROM ranks CROSS JOIN LATERAL (
                SELECT id FROM {{schema}}dbtaskqueue_task
                 WHERE {{waiting}} AND rank = ranks.level AND (due, id) >= (ranks.first_due, ranks.first_id)
                   AND due <= :now AND command <= :commands AND (expires IS NULL OR expires > :now)
                 ORDER BY due, id LIMIT :limit FOR UPDATE SKIP LOCKED) AS task
          WHERE EXISTS (SELECT 1 FROM member)
            AND NOT EXISTS (SELECT 1 FROM {{schema}}dbtaskqueue_queue WHERE name = :queue AND paused = 1)
          LIMIT :limit),
     claimed AS (
         UPDATE {{schema}}dbtaskqueue_task
            SET token = token + 1, worker = :worker, batched = CASE WHEN :batched = 1 AND isolated = 0 THEN 1 ELSE 0 END,
                attempt = attempt + :start, started_at = CASE WHEN :start = 1 THEN :now ELSE started_at END,
                state = :state
          WHERE id = ANY(ARRAY(SELECT id FROM chosen))
         RETURNING *)
SELECT (SELECT count(*) FROM ended),
       (SELECT pg_stat_get_xact_tuples_returned(index) + :per_page * pg_stat_get_xact_blocks_fetched(index)
          FROM (SELECT CAST(:index AS regclass) AS index) AS _),
       {{claim_columns}}
  FROM (SELECT 1) AS one LEFT JOIN claimed AS dbtaskqueue_task ON true

-- name: highest_used
SELECT coalesce(pg_sequence_last_value(CAST(pg_get_serial_sequence(:table, 'id') AS regclass)), 0)

-- name: raise_sequence
SELECT setval(pg_get_serial_sequence(:table, 'id'), CAST(:highest AS bigint)) WHERE CAST(:highest AS bigint) > 0

-- name: past_attempts
-- Differs because PostgreSQL might read all attempts of the database for the join.
SELECT {{ended_columns}}
  FROM (SELECT id, function, command FROM {{schema}}dbtaskqueue_task
         WHERE {{is_ended}} AND queue = :queue
         ORDER BY id DESC LIMIT :limit) AS newest
 CROSS JOIN LATERAL (
       SELECT outcome, started_at, finished_at, cpu, memory FROM {{schema}}dbtaskqueue_attempt
        WHERE task = newest.id OFFSET 0) AS past

-- name: settings
SELECT name, setting FROM pg_settings
 WHERE name IN ('server_version', 'fsync', 'synchronous_commit', 'full_page_writes', 'autovacuum',
                'default_transaction_isolation', 'TimeZone', 'max_connections', 'statement_timeout')

-- name: is_standby
SELECT pg_is_in_recovery()

-- name: connections
SELECT count(*) FROM pg_stat_activity

-- name: sizes
SELECT coalesce(sum(pg_table_size(relid)), 0), coalesce(sum(pg_indexes_size(relid)), 0),
       coalesce(sum(n_live_tup), 0), coalesce(sum(n_dead_tup), 0)
  FROM pg_stat_user_tables WHERE schemaname = :schema AND relname LIKE 'dbtaskqueue%'

-- name: long_transactions
SELECT pid, extract(epoch FROM now() - xact_start), coalesce(application_name, '')
  FROM pg_stat_activity
 WHERE backend_xmin IS NOT NULL AND xact_start < now() - CAST(:seconds AS double precision) * interval '1 second' AND pid <> pg_backend_pid()
 ORDER BY xact_start LIMIT 5

-- name: missing_rights
SELECT relname, right_name
  FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
  CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_name
 WHERE nspname = :schema AND relname LIKE 'dbtaskqueue%' AND relkind = 'r'
   AND NOT (relname = 'dbtaskqueue_schema' AND right_name <> 'SELECT')
   AND NOT has_table_privilege(pg_class.oid, right_name)
 ORDER BY relname, right_name

-- name: error_has
-- Differs because each engine has its own function that compares a part of a text byte by byte; the same below.
strpos({{task_error}}, CAST(:value_n AS text)) > 0

-- name: payload_has
strpos({{task_payload}}, CAST(:value_n AS text)) > 0

-- name: function_has
strpos(function, CAST(:value_n AS text)) > 0

-- name: key_has
strpos("key", CAST(:value_n AS text)) > 0

-- name: options_have
strpos(options, CAST(:value_n AS text)) > 0

-- name: where_function_starts
-- Differs because LIKE ignores case on some engines, and length() counts bytes on others.
substr(function, 1, length(CAST(:value_n AS text))) = :value_n

-- name: by_action_id
-- Differs because PostgreSQL takes no hints.

-- name: by_operation_id
-- Differs because PostgreSQL takes no hints.
