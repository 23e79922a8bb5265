-- See 0003.sql of SQLite.
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN solo TO isolated;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN shared TO batched;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN base TO retry_base;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN retried TO retry_token;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN decided_at TO due_set_at;

ALTER TABLE {{schema}}dbtaskqueue_task ADD COLUMN options TEXT, ADD COLUMN meta TEXT;
ALTER TABLE {{schema}}dbtaskqueue_attempt ADD COLUMN error_type TEXT;

-- NULL for a text that is not JSON, where a cast would stop the migration. PostgreSQL 16 could ask before.
CREATE FUNCTION {{schema}}dbtaskqueue_json(given TEXT) RETURNS JSON LANGUAGE plpgsql AS
    'BEGIN RETURN CAST(given AS JSON); EXCEPTION WHEN OTHERS THEN RETURN NULL; END';
UPDATE {{schema}}dbtaskqueue_task AS task
   SET options = (SELECT json_object_agg(key, value)
                    FROM (VALUES ('retry', CASE WHEN json_typeof(read.policy) = 'object' THEN read.policy END),
                                 ('time_limit', CASE WHEN json_typeof(read.limits -> 'time') = 'number'
                                                     THEN read.limits -> 'time' END),
                                 ('stall_limit', CASE WHEN json_typeof(read.limits -> 'stall') = 'number'
                                                      THEN read.limits -> 'stall' END),
                                 ('memory_limit', CASE WHEN json_typeof(read.limits -> 'memory') = 'number'
                                                       THEN read.limits -> 'memory' END)) AS option(key, value)
                   WHERE value IS NOT NULL)
  FROM (SELECT id, {{schema}}dbtaskqueue_json(policy) AS policy, {{schema}}dbtaskqueue_json(limits) AS limits
          FROM {{schema}}dbtaskqueue_task WHERE policy IS NOT NULL OR limits IS NOT NULL) AS read
 WHERE read.id = task.id;
DROP FUNCTION {{schema}}dbtaskqueue_json(TEXT);
ALTER TABLE {{schema}}dbtaskqueue_task DROP COLUMN policy, DROP COLUMN limits;
UPDATE {{schema}}dbtaskqueue_schema SET version = 3, oldest = 3;
