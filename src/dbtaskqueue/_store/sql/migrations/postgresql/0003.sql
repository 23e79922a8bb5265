-- See 0003.sql of SQLite.
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN solo TO isolated;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN shared TO batched;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN base TO retry_base;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN retried TO retry_token;
ALTER TABLE {{schema}}dbtaskqueue_task RENAME COLUMN decided_at TO due_set_at;
UPDATE {{schema}}dbtaskqueue_schema SET version = 3, oldest = 3;
