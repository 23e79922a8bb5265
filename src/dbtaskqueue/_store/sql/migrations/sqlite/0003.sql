-- Version 0.2.0. Columns get the names by which the code calls them. Programs of earlier versions use the old names, so
-- "oldest" becomes 3.
ALTER TABLE dbtaskqueue_task RENAME COLUMN solo TO isolated;        -- was in a batch whose worker died: runs alone
ALTER TABLE dbtaskqueue_task RENAME COLUMN shared TO batched;       -- claimed in a batch that stores starts with ends
ALTER TABLE dbtaskqueue_task RENAME COLUMN base TO retry_base;      -- the attempt number at the last operator's retry
ALTER TABLE dbtaskqueue_task RENAME COLUMN retried TO retry_token;  -- the token at the last operator's retry
ALTER TABLE dbtaskqueue_task RENAME COLUMN decided_at TO due_set_at;
UPDATE dbtaskqueue_schema SET version = 3, oldest = 3;
