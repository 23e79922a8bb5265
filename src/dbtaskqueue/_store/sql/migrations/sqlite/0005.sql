-- History, retention, operators' actions and operations. Only new tables and columns that earlier programs leave NULL, so
-- "oldest" stays 4.

ALTER TABLE dbtaskqueue_note ADD COLUMN at INTEGER;                -- when the value last changed; NULL: unknown
ALTER TABLE dbtaskqueue_note ADD COLUMN changes INTEGER NOT NULL DEFAULT 0;   -- how often it has changed
ALTER TABLE dbtaskqueue_worker ADD COLUMN version TEXT;            -- of dbtaskqueue; NULL: unknown
ALTER TABLE dbtaskqueue_worker ADD COLUMN slots INTEGER;           -- how many tasks it runs at the same time; NULL: unknown

-- What attempts did, by the time of their end. Each attempt is counted in exactly one row, so that the sum over the table
-- never falls: a worker overwrites its own row of the current minute, and old rows are added up to longer periods.
CREATE TABLE dbtaskqueue_history (
    period     INTEGER NOT NULL,          -- seconds: 60, 600, 3600 or 86400; 0: the total of all earlier times
    at         INTEGER NOT NULL,          -- when the period starts; 0 for the total
    worker     INTEGER NOT NULL,          -- who wrote it; 0 for longer periods
    queue      TEXT NOT NULL,
    function   TEXT NOT NULL,             -- as function_stats() names it; "(other)" for rare ones of many
    done       INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    abandoned  INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    lost       INTEGER NOT NULL,
    released   INTEGER NOT NULL,
    seconds    INTEGER NOT NULL,          -- microseconds that these attempts ran
    cpu        INTEGER NOT NULL,          -- microseconds of CPU time
    memory     INTEGER,                   -- the largest peak memory in bytes; NULL: not measured
    run_times  TEXT NOT NULL,             -- JSON object: exponent k of a bucket up to 2^k s -> number of attempts
    wait_times TEXT NOT NULL,             -- the same for the time from due to start
    PRIMARY KEY (period, at, worker, queue, function)
) STRICT, WITHOUT ROWID;

-- What was counted at a moment of a period. In longer periods: the largest values.
CREATE TABLE dbtaskqueue_sample (
    period      INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    queue       TEXT NOT NULL,
    pending     INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    reserved    INTEGER NOT NULL,
    running     INTEGER NOT NULL,
    blocked     INTEGER NOT NULL,
    oldest_due  INTEGER,                  -- microseconds that the longest-waiting due task has waited; NULL: none waits
    workers     INTEGER NOT NULL,         -- live ones that serve the queue
    PRIMARY KEY (period, at, queue)
) STRICT, WITHOUT ROWID;

-- What one program of the database does at a time: the one that moves "next_at" has the turn.
CREATE TABLE dbtaskqueue_duty (
    name     TEXT PRIMARY KEY,
    next_at  INTEGER NOT NULL,
    turns    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- What is pruned in the background. NULL: kept.
CREATE TABLE dbtaskqueue_retention (
    queue      TEXT PRIMARY KEY,
    done       INTEGER,                   -- microseconds after its end for which a task is kept
    cancelled  INTEGER,
    abandoned  INTEGER,
    most       INTEGER                    -- final tasks that are kept at most
) STRICT, WITHOUT ROWID;

-- The audit log: what operators did, and what was refused. Rows are only added, in the transaction of the change.
CREATE TABLE dbtaskqueue_action (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    who      TEXT NOT NULL,
    via      TEXT NOT NULL,               -- dashboard, api, cli or python
    verb     TEXT NOT NULL,
    queue    TEXT,
    task     INTEGER,
    detail   TEXT,                        -- JSON: filters, old and new values; never a payload
    changed  INTEGER NOT NULL,            -- how many tasks or other things it changed
    outcome  TEXT NOT NULL                -- done, or why it was refused
) STRICT;
CREATE INDEX dbtaskqueue_action_task ON dbtaskqueue_action (task, id) WHERE task IS NOT NULL;

-- Bulk actions of the dashboard. Another dashboard continues one whose program has died.
CREATE TABLE dbtaskqueue_operation (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    verb        TEXT NOT NULL,            -- cancel, retry, reschedule or delete
    filters     TEXT NOT NULL,            -- JSON object; relative times are fixed
    options     TEXT NOT NULL,            -- JSON object: spread, start_at and so on
    who         TEXT NOT NULL,
    via         TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    highest     INTEGER NOT NULL,         -- tasks with higher ids are not meant
    state       TEXT NOT NULL,            -- running, done or stopped
    position    TEXT,                     -- where the search continues; NULL: at its start
    scanned     INTEGER NOT NULL DEFAULT 0,
    changed     INTEGER NOT NULL DEFAULT 0,
    refused     TEXT NOT NULL,            -- JSON object: reason -> number of tasks
    runner      TEXT,                     -- the program that carries it out
    step_at     INTEGER NOT NULL,         -- when its last step ended
    ended_at    INTEGER
) STRICT;
CREATE INDEX dbtaskqueue_operation_open ON dbtaskqueue_operation (id) WHERE state = 'running';

UPDATE dbtaskqueue_schema SET version = 5;
