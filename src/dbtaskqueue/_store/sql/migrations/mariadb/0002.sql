-- See 0002.sql of SQLite. Each statement commits by itself, so each may be run again.
ALTER TABLE dbtaskqueue_worker ADD COLUMN IF NOT EXISTS queues MEDIUMTEXT;
ALTER TABLE dbtaskqueue_worker ADD COLUMN IF NOT EXISTS functions MEDIUMTEXT;
UPDATE dbtaskqueue_schema SET version = 2;
INSERT INTO dbtaskqueue_schema (version, oldest, identity)
SELECT 2, 1, UUID() FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_schema);
