-- See 0003.sql of SQLite. Each statement commits by itself, so each may be run again.
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS solo TO isolated;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS shared TO batched;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS base TO retry_base;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS retried TO retry_token;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS decided_at TO due_set_at;
ALTER TABLE dbtaskqueue_attempt ADD COLUMN IF NOT EXISTS error_type VARCHAR(500);

-- The old columns are added again where a migration was interrupted after it had dropped them.
ALTER TABLE dbtaskqueue_task
    ADD COLUMN IF NOT EXISTS options TEXT, ADD COLUMN IF NOT EXISTS meta TEXT,
    ADD COLUMN IF NOT EXISTS policy TEXT, ADD COLUMN IF NOT EXISTS limits TEXT;
UPDATE dbtaskqueue_task SET options = JSON_OBJECT('retry', JSON_COMPACT(policy))
 WHERE JSON_VALID(policy) AND JSON_TYPE(policy) = 'OBJECT';
UPDATE dbtaskqueue_task SET options = JSON_SET(COALESCE(options, '{}'), '$.time_limit', JSON_EXTRACT(limits, '$.time'))
 WHERE JSON_VALID(limits) AND JSON_TYPE(JSON_EXTRACT(limits, '$.time')) IN ('INTEGER', 'DOUBLE');
UPDATE dbtaskqueue_task SET options = JSON_SET(COALESCE(options, '{}'), '$.stall_limit', JSON_EXTRACT(limits, '$.stall'))
 WHERE JSON_VALID(limits) AND JSON_TYPE(JSON_EXTRACT(limits, '$.stall')) IN ('INTEGER', 'DOUBLE');
UPDATE dbtaskqueue_task SET options = JSON_SET(COALESCE(options, '{}'), '$.memory_limit', JSON_EXTRACT(limits, '$.memory'))
 WHERE JSON_VALID(limits) AND JSON_TYPE(JSON_EXTRACT(limits, '$.memory')) = 'INTEGER';
ALTER TABLE dbtaskqueue_task DROP COLUMN IF EXISTS policy, DROP COLUMN IF EXISTS limits;
UPDATE dbtaskqueue_schema SET version = 3, oldest = 3;
INSERT INTO dbtaskqueue_schema (version, oldest, identity)
SELECT 3, 3, UUID() FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_schema);
