-- See 0002.sql of SQLite.
ALTER TABLE {{schema}}dbtaskqueue_worker ADD COLUMN queues TEXT;
ALTER TABLE {{schema}}dbtaskqueue_worker ADD COLUMN functions TEXT;
UPDATE {{schema}}dbtaskqueue_schema SET version = 2;
