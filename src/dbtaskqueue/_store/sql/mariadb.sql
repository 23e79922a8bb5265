-- MariaDB: only what differs from the other engines, and why.
--
-- [[…]] is repeated; names in it that end with _n get the numbers 0, 1, 2, … [[…,]] is repeated with commas between.

-- name: schema
-- Differs because the tables are in the user's database. Their names have a prefix, but no schema.

-- name: waiting
-- Differs because MariaDB has no partial index: generated columns are NULL in the rows that an index
-- leaves out. The same below.
waiting = :queue

-- name: is_blocked
blocked_in = :queue

-- name: is_open_edge
-- Differs because MariaDB has no partial index.
open_parent {{in_ids}}

-- name: open_parent
-- Differs because of that column.
open_parent

-- name: overlooked
-- Differs because of that column.
SELECT DISTINCT parent FROM dbtaskqueue_edge {{by_open_edge}}
 WHERE open_parent IS NOT NULL
   AND (SELECT CASE WHEN finished_at IS NULL THEN 0 ELSE 1 END FROM dbtaskqueue_task WHERE id = parent) = 1
   AND NOT EXISTS (SELECT 1 FROM dbtaskqueue_undecided AS known WHERE known.parent = dbtaskqueue_edge.parent)
 LIMIT :limit

-- name: insert_undecided
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_undecided (parent) VALUES (:parent) ON DUPLICATE KEY UPDATE parent = parent

-- name: is_held_by
holder = :worker

-- name: is_held
holder IS NOT NULL

-- name: is_ended
ended = :state

-- name: in_ids
IN :ids

-- name: for_update
FOR UPDATE

-- name: for_update_if_free
FOR UPDATE SKIP LOCKED

-- name: for_share
LOCK IN SHARE MODE

-- name: database_now
-- In UTC: in the session's time zone, an hour may come twice.
TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))

-- name: insert_schedule
-- Differs because MariaDB has no ON CONFLICT, and counts a row that exists already like a new one.
INSERT INTO dbtaskqueue_schedule ({{stored_schedule_columns}})
SELECT {{stored_schedule_values}} FROM DUAL
 WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_schedule WHERE queue = :queue AND name = :name)

-- name: insert_tick
-- Differs because MariaDB has no ON CONFLICT. The lock on the schedule protects what the subquery reads.
INSERT INTO dbtaskqueue_tick ({{stored_tick_columns}})
SELECT {{stored_tick_values}} FROM DUAL
 WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_tick WHERE queue = :queue AND schedule = :schedule AND at = :at)

-- name: save
-- Differs because MariaDB has no ON CONFLICT; the same below.
INSERT INTO dbtaskqueue_large (task, name, value)
SELECT id, :name, :value FROM dbtaskqueue_task WHERE {{is_started}} {{for_share}}
    ON DUPLICATE KEY UPDATE value = VALUES(value)

-- name: save_note
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_note (task, token, name, value, at, changes)
SELECT id, token, :name, :value, :at, 1 FROM dbtaskqueue_task WHERE {{is_started}}
    ON DUPLICATE KEY UPDATE value = VALUES(value), at = VALUES(at), changes = dbtaskqueue_note.changes + 1

-- name: given_queues
JSON_TABLE(:queues, '$[*]' COLUMNS (name VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PATH '$'))

-- name: done_in_given
queue = given.name AND ended = 'done'

-- name: cancelled_in_given
queue = given.name AND ended = 'cancelled'

-- name: abandoned_in_given
queue = given.name AND ended = 'abandoned'

-- name: by_id
-- Differs because the plan must not depend on outdated statistics; the same below.
FORCE INDEX (PRIMARY)

-- name: by_claimable
-- Differs because rows are locked as they are read: the plan must not depend on statistics that are out of date.
FORCE INDEX (dbtaskqueue_claimable)

-- name: by_blocked
FORCE INDEX (dbtaskqueue_blocked)

-- name: by_open_edge
FORCE INDEX (dbtaskqueue_edge_open)

-- name: by_held
FORCE INDEX (dbtaskqueue_held)

-- name: by_ended
FORCE INDEX (dbtaskqueue_ended)

-- name: server
SELECT VERSION(), @@version_comment, @@max_allowed_packet

-- name: settings_for_all
-- Replace the server's own settings. A transaction whose process is frozen must not keep its locks forever.
SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,SIMULTANEOUS_ASSIGNMENT',
    collation_connection = 'utf8mb4_nopad_bin', max_statement_time = :timeout, idle_transaction_timeout = :timeout,
    innodb_lock_wait_timeout = :lock_timeout, lock_wait_timeout = :lock_timeout, sql_safe_updates = 0,
    sql_select_limit = DEFAULT

-- name: settings_for_writing
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE

-- name: settings_for_galera
-- If programs write on two nodes, one of two conflicting statements fails. By default, the cluster runs it again, and
-- INSERT … RETURNING returns the rows of both runs, with ids that were never stored. With this, it raises an error.
SET SESSION wsrep_retry_autocommit = 0

-- name: settings_for_reading
SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE

-- name: start_transaction
START TRANSACTION READ WRITE

-- name: start_reading
START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY

-- name: has_schema
-- Differs because each engine has its own catalogue.
SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'dbtaskqueue_schema'

-- name: grant_to_create
--- The rights that migrate and a program need, as a statement for an administrator. CHAR(96) is a backtick.
SELECT CURRENT_USER(), CONCAT(
           'GRANT CREATE, INDEX, ALTER, SELECT, INSERT, UPDATE, DELETE ON ',
           CHAR(96), REPLACE(DATABASE(), CHAR(96), CHAR(96, 96)), CHAR(96), '.* TO ',
           QUOTE(LEFT(CURRENT_USER(), CHAR_LENGTH(CURRENT_USER()) - CHAR_LENGTH(host) - 1)), '@', QUOTE(host))
  FROM (SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', -1) AS host) AS account

-- name: charset
-- Only MariaDB lets a connection have a character set that cannot store every text.
SELECT @@character_set_client

-- name: identity
SELECT identity FROM dbtaskqueue_schema

-- name: lock_schema
-- Differs because each engine has a lock of its own for changes of the schema; MariaDB's is for the whole server.
SELECT GET_LOCK(CONCAT('dbtaskqueue.', MD5(DATABASE())), :timeout)

-- name: unlock_schema
SELECT RELEASE_LOCK(CONCAT('dbtaskqueue.', MD5(DATABASE())))

-- name: insert_task
-- Differs because one statement for many tasks is one round trip.
INSERT INTO dbtaskqueue_task ({{new_task_columns}}) VALUES [[({{new_task_values}}),]]
RETURNING id

-- name: new_payload
:payload_n

-- name: insert_large
-- Differs because MariaDB has no ON CONFLICT, and INSERT IGNORE would ignore much more.
INSERT INTO dbtaskqueue_large (task, name, value) VALUES (:task, :name, :value)
    ON DUPLICATE KEY UPDATE task = task

-- name: insert_large_result
-- Only for tasks that the batch made done.
INSERT INTO dbtaskqueue_large (task, name, value)
SELECT id, 'result', :value FROM dbtaskqueue_task WHERE id = :task AND state = 'done' AND token = :token
    ON DUPLICATE KEY UPDATE task = task

-- name: unfinished_with_key
-- Differs because the keys of unfinished tasks have a column of their own, for the unique index; the same below.
SELECT id FROM dbtaskqueue_task WHERE queue = :queue AND open_key = :key

-- name: key_is_taken
-- Differs because of that column.
SELECT 1 FROM dbtaskqueue_task AS other
 WHERE other.queue = (SELECT queue FROM dbtaskqueue_task WHERE id = :id)
   AND other.open_key = (SELECT "key" FROM dbtaskqueue_task WHERE id = :id)
   AND other.id <> :id

-- name: queues
-- Differs because MariaDB would walk over all rows, both for the recursive query of the other engines and for DISTINCT.
-- Returns the next names after each of some names, one index seek for each; and NULL.
SELECT queue FROM dbtaskqueue_task {{by_held}} WHERE {{is_held}}
UNION
SELECT name FROM dbtaskqueue_queue WHERE paused = 1
[[UNION
SELECT min(waiting) FROM dbtaskqueue_task {{by_claimable}} WHERE waiting > :after_n
UNION
SELECT min(blocked_in) FROM dbtaskqueue_task {{by_blocked}} WHERE blocked_in > :after_n
UNION
SELECT min(queue) FROM dbtaskqueue_task {{by_ended}} WHERE ended = 'done' AND queue > :after_n
UNION
SELECT min(queue) FROM dbtaskqueue_task {{by_ended}} WHERE ended = 'cancelled' AND queue > :after_n
UNION
SELECT min(queue) FROM dbtaskqueue_task {{by_ended}} WHERE ended = 'abandoned' AND queue > :after_n
UNION
SELECT min(queue) FROM dbtaskqueue_schedule WHERE queue > :after_n]]

-- name: set_paused
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_queue (name, paused) VALUES (:queue, :paused)
    ON DUPLICATE KEY UPDATE paused = VALUES(paused)

-- name: finish_batch
-- Differs because this takes one round trip, and half the time of a join with JSON_TABLE.
UPDATE dbtaskqueue_task SET {{finished_columns}} WHERE {{is_finished}}

-- name: finish_batch_measured
-- For ends with measurements. Each further value is searched in a list of all of them, which takes time.
UPDATE dbtaskqueue_task
   SET cpu = CASE id [[WHEN :id_n THEN :cpu_n]] END, memory = CASE id [[WHEN :id_n THEN :memory_n]] END,
       {{finished_columns}}
 WHERE {{is_finished}}

-- name: finished_columns
       finished_at = CASE id [[WHEN :id_n THEN :at_n]] END, result = CASE id [[WHEN :id_n THEN :result_n]] END,
       batched = 0,
       attempt = CASE WHEN state = 'reserved' THEN attempt + 1 ELSE attempt END,
       started_at = CASE WHEN state = 'reserved' THEN CASE id [[WHEN :id_n THEN :started_at_n]] END ELSE started_at END,
       state = 'done'

-- name: is_finished
id IN ([[:id_n,]]) AND token = CASE id [[WHEN :id_n THEN :token_n]] END
   AND (state = 'running' OR state = 'reserved' AND batched = 1) AND (flow & 1) <= :flow

-- name: first_of_rank
-- The first task of the next priority, found by one index seek. For the recursive query of the other engines, and for
-- any GROUP BY, MariaDB would walk over all rows.
SELECT rank, due, id FROM dbtaskqueue_task {{by_claimable}}
 WHERE {{waiting}} AND rank > :rank AND command <= :commands
   AND (:even_paused = 1 OR NOT EXISTS (SELECT 1 FROM dbtaskqueue_queue WHERE name = :queue AND paused = 1))
 ORDER BY rank, due, id LIMIT 1

-- name: waiting_since
-- Differs because MariaDB finds the priorities one by one. This is for the tasks of one priority.
SELECT min({{since}})
  FROM (SELECT due, due_set_at FROM dbtaskqueue_task {{by_claimable}}
         WHERE {{waiting}} AND rank = :rank AND due <= :now
         ORDER BY due, id LIMIT 1000) AS first

-- name: lock_worker
-- A rescue of this worker waits for this claim, or this claim sees that it is lost.
SELECT 1 FROM dbtaskqueue_worker WHERE id = :worker AND lost_at IS NULL LOCK IN SHARE MODE

-- name: claimable
-- Starts at the first task, which a read without locks has found. A locking read from the start would walk over every
-- task that was claimed since the oldest transaction on the server started: 55 ms for 50,000.
SELECT {{claim_columns}} FROM dbtaskqueue_task {{by_claimable}}
 WHERE {{waiting}} AND rank = :rank AND (due = :first_due AND id >= :first OR due > :first_due AND due <= :now)
   AND command <= :commands AND (expires IS NULL OR expires > :now)
 ORDER BY due, id LIMIT :limit FOR UPDATE SKIP LOCKED

-- name: claim
-- Differs because MariaDB has no UPDATE … RETURNING. The rows were read and locked before.
UPDATE dbtaskqueue_task
   SET token = token + 1, worker = :worker, batched = CASE WHEN :batched = 1 AND isolated = 0 THEN 1 ELSE 0 END,
       attempt = attempt + :start, started_at = CASE WHEN :start = 1 THEN :now ELSE started_at END,
       state = :state
 WHERE id {{in_ids}} AND state IN ('pending', 'failed')

-- name: fix_due_after_clock_change
-- Differs because the index of waiting tasks starts with that column.
UPDATE dbtaskqueue_task {{by_claimable}} SET due = :now, due_set_at = :now
 WHERE waiting IS NOT NULL AND due > :now AND due <= due_set_at

-- name: variables
SELECT LOWER(variable_name), variable_value FROM information_schema.global_variables
 WHERE variable_name IN ('innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', 'sync_binlog',
                         'binlog_format', 'sql_mode', 'tx_isolation', 'transaction_isolation', 'time_zone',
                         'max_connections', 'max_allowed_packet', 'read_only', 'wsrep_on')

-- name: status
SELECT LOWER(variable_name), variable_value FROM information_schema.global_status
 WHERE variable_name IN ('Threads_connected', 'Innodb_history_list_length', 'wsrep_cluster_size',
                         'wsrep_cluster_status', 'wsrep_ready', 'wsrep_local_state_comment')

-- name: sizes
SELECT COALESCE(SUM(data_length), 0), COALESCE(SUM(index_length), 0), COALESCE(SUM(data_free), 0)
  FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name LIKE 'dbtaskqueue%'

-- name: long_transactions
SELECT trx_mysql_thread_id, UNIX_TIMESTAMP() - UNIX_TIMESTAMP(trx_started) FROM information_schema.innodb_trx
 WHERE trx_started < NOW() - INTERVAL 5 MINUTE AND trx_mysql_thread_id <> CONNECTION_ID()
 ORDER BY trx_started LIMIT 5

-- name: our_tables
SELECT table_name FROM information_schema.tables
 WHERE table_schema = DATABASE() AND table_name LIKE 'dbtaskqueue%' ORDER BY table_name

-- name: roles
SELECT COUNT(*) FROM information_schema.enabled_roles WHERE role_name IS NOT NULL

-- name: rights
-- Rights on the whole server or database name no table.
SELECT table_name, privilege_type
  FROM (SELECT grantee, NULL AS table_name, privilege_type FROM information_schema.user_privileges
        UNION ALL
        SELECT grantee, NULL, privilege_type FROM information_schema.schema_privileges
         WHERE DATABASE() LIKE table_schema
        UNION ALL
        SELECT grantee, table_name, privilege_type FROM information_schema.table_privileges
         WHERE table_schema = DATABASE()) AS granted
 WHERE grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')

-- name: highest_used
SELECT coalesce(auto_increment, 1) - 1 FROM information_schema.tables
 WHERE table_schema = database() AND table_name = 'dbtaskqueue_task'

-- name: load_action
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_action ({{stored_action_columns}}) VALUES ({{stored_action_values}})
    ON DUPLICATE KEY UPDATE id = id

-- name: load_operation
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_operation ({{stored_operation_columns}}) VALUES ({{stored_operation_values}})
    ON DUPLICATE KEY UPDATE id = id

-- name: raise_auto_increment
ALTER TABLE dbtaskqueue_task AUTO_INCREMENT = :next

-- name: error_has
-- Differs because each engine has its own function that compares a part of a text byte by byte; the same below.
LOCATE(BINARY :value_n, BINARY {{task_error}}) > 0

-- name: payload_has
LOCATE(BINARY :value_n, BINARY {{task_payload}}) > 0

-- name: function_has
LOCATE(BINARY :value_n, BINARY function) > 0

-- name: key_has
LOCATE(BINARY :value_n, BINARY "key") > 0

-- name: options_have
LOCATE(BINARY :value_n, BINARY options) > 0

-- name: where_function_starts
-- Differs because LIKE ignores case on some engines, and length() counts bytes on others.
LEFT(function, CHAR_LENGTH(:value_n)) = :value_n

-- name: by_action_id
FORCE INDEX (PRIMARY)

-- name: by_operation_id
FORCE INDEX (PRIMARY)

-- name: count_lost_worker
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_duty (name, next_at, turns) VALUES ('workers lost', :now, 1)
    ON DUPLICATE KEY UPDATE next_at = :now, turns = turns + 1

-- name: queue_counts
-- Differs because of the columns that take the place of partial indexes, which also make these counts simpler.
SELECT waiting, 'waiting', count(*) FROM dbtaskqueue_task {{by_claimable}} WHERE waiting IS NOT NULL GROUP BY waiting
UNION ALL
SELECT blocked_in, 'blocked', count(*) FROM dbtaskqueue_task {{by_blocked}}
 WHERE blocked_in IS NOT NULL GROUP BY blocked_in
UNION ALL
SELECT queue, 'failed', count(*) FROM dbtaskqueue_task {{by_ended}} WHERE ended = 'failed' GROUP BY queue
UNION ALL
SELECT queue, state, count(*) FROM dbtaskqueue_task {{by_held}} WHERE {{is_held}} GROUP BY queue, state

-- name: write_history
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_history ({{stored_history_columns}}) VALUES ({{stored_history_values}})
    ON DUPLICATE KEY UPDATE
       done = VALUES(done), failed = VALUES(failed), abandoned = VALUES(abandoned), cancelled = VALUES(cancelled),
       lost = VALUES(lost), released = VALUES(released), seconds = VALUES(seconds), cpu = VALUES(cpu),
       memory = VALUES(memory), run_times = VALUES(run_times), wait_times = VALUES(wait_times)

-- name: new_history
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_history ({{stored_history_columns}}) VALUES ({{stored_history_values}})
    ON DUPLICATE KEY UPDATE period = dbtaskqueue_history.period

-- name: write_sample
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_sample ({{stored_sample_columns}}) VALUES ({{stored_sample_values}})
    ON DUPLICATE KEY UPDATE
       pending = VALUES(pending), failed = VALUES(failed), reserved = VALUES(reserved), running = VALUES(running),
       blocked = VALUES(blocked), oldest_due = VALUES(oldest_due), workers = VALUES(workers)

-- name: new_duty
-- Differs because with FOUND_ROWS, MariaDB counts a row that exists already like a new one.
INSERT INTO dbtaskqueue_duty (name, next_at, turns)
SELECT :name, :next, 1 FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_duty WHERE name = :name)

-- name: set_retention
-- Differs because MariaDB has no ON CONFLICT.
INSERT INTO dbtaskqueue_retention ({{stored_retention_columns}}) VALUES ({{stored_retention_values}})
    ON DUPLICATE KEY UPDATE
       done = VALUES(done), cancelled = VALUES(cancelled), abandoned = VALUES(abandoned), most = VALUES(most)
