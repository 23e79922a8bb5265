-- What a worker serves, so that doctor can name functions that no live worker has code for. Programs of version 1 leave
-- both columns NULL and continue to work, so "oldest" stays 1.
ALTER TABLE dbtaskqueue_worker ADD COLUMN queues TEXT;     -- JSON list of names; NULL: unknown
ALTER TABLE dbtaskqueue_worker ADD COLUMN functions TEXT;  -- JSON list of function names, null in it: a callback; NULL: unknown
UPDATE dbtaskqueue_schema SET version = 2;
