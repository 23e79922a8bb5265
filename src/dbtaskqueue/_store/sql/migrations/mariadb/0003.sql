-- See 0003.sql of SQLite. Each statement commits by itself, so each may be run again.
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS solo TO isolated;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS shared TO batched;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS base TO retry_base;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS retried TO retry_token;
ALTER TABLE dbtaskqueue_task RENAME COLUMN IF EXISTS decided_at TO due_set_at;
UPDATE dbtaskqueue_schema SET version = 3, oldest = 3;
INSERT INTO dbtaskqueue_schema (version, oldest, identity)
SELECT 3, 3, UUID() FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_schema);
