-- Version 0.2.0. Columns get the names by which the code calls them. Programs of earlier versions use the old names, so
-- "oldest" becomes 3.
ALTER TABLE dbtaskqueue_task RENAME COLUMN solo TO isolated;        -- was in a batch whose worker died: runs alone
ALTER TABLE dbtaskqueue_task RENAME COLUMN shared TO batched;       -- claimed in a batch that stores starts with ends
ALTER TABLE dbtaskqueue_task RENAME COLUMN base TO retry_base;      -- the attempt number at the last operator's retry
ALTER TABLE dbtaskqueue_task RENAME COLUMN retried TO retry_token;  -- the token at the last operator's retry
ALTER TABLE dbtaskqueue_task RENAME COLUMN decided_at TO due_set_at;

ALTER TABLE dbtaskqueue_task ADD COLUMN options TEXT;               -- JSON of what only a worker reads; NULL: all defaults
ALTER TABLE dbtaskqueue_task ADD COLUMN meta TEXT;                  -- JSON object beside the payload, at most 8 KiB
ALTER TABLE dbtaskqueue_attempt ADD COLUMN error_type TEXT;         -- the full name of the error's class; NULL: unknown

-- "options" replaces "policy" and "limits". A text in them that is not JSON becomes NULL: the defaults apply, as before.
UPDATE dbtaskqueue_task SET options = json_object('retry', json(policy))
 WHERE CASE WHEN json_valid(policy) THEN json_type(policy) = 'object' END;
UPDATE dbtaskqueue_task SET options = json_set(coalesce(options, '{}'), '$.time_limit', json(limits -> '$.time'))
 WHERE CASE WHEN json_valid(limits) THEN json_type(limits, '$.time') IN ('integer', 'real') END;
UPDATE dbtaskqueue_task SET options = json_set(coalesce(options, '{}'), '$.stall_limit', json(limits -> '$.stall'))
 WHERE CASE WHEN json_valid(limits) THEN json_type(limits, '$.stall') IN ('integer', 'real') END;
UPDATE dbtaskqueue_task SET options = json_set(coalesce(options, '{}'), '$.memory_limit', json(limits -> '$.memory'))
 WHERE CASE WHEN json_valid(limits) THEN json_type(limits, '$.memory') = 'integer' END;
ALTER TABLE dbtaskqueue_task DROP COLUMN policy;
ALTER TABLE dbtaskqueue_task DROP COLUMN limits;
UPDATE dbtaskqueue_schema SET version = 3, oldest = 3;
