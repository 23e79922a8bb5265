-- Times are microseconds since 1970 (UTC). Our tables carry a prefix: the file may be an application's own. They are
-- STRICT: a row with a text for a number, written by hand, would break the rescue of all that a dead worker held.

CREATE TABLE dbtaskqueue_schema (
    version  INTEGER NOT NULL,
    oldest   INTEGER NOT NULL   -- the oldest version that a program may know and still use this schema
) STRICT;
INSERT INTO dbtaskqueue_schema (version, oldest) VALUES (1, 1);

-- The highest task id that was ever pruned: ids are never used again. AUTOINCREMENT would write one
-- more page in every enqueue (bench/enqueue.py).
CREATE TABLE dbtaskqueue_pruned (
    highest  INTEGER NOT NULL
) STRICT;
INSERT INTO dbtaskqueue_pruned (highest) VALUES (0);

CREATE TABLE dbtaskqueue_queue (
    name    TEXT PRIMARY KEY,
    paused  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dbtaskqueue_worker (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    host       TEXT NOT NULL,
    pid        INTEGER NOT NULL,
    boot       TEXT,              -- the place: boot id and PID namespace, NULL where they cannot be read
    namespace  TEXT,
    started    INTEGER,           -- the process's start time in clock ticks since boot
    lease      REAL NOT NULL,     -- seconds of silence after which its tasks may be taken
    beat       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    lost_at    INTEGER,
    executor   TEXT               -- how it runs tasks: thread, process or asyncio; NULL: a plain fetch() user
) STRICT;

CREATE TABLE dbtaskqueue_task (
    id           INTEGER PRIMARY KEY,
    queue        TEXT NOT NULL,
    -- written out: SQLite builds a table for each IN of more than two values, here and in an index, at every change
    state        TEXT NOT NULL CHECK (
                     state = 'pending' OR state = 'reserved' OR state = 'done' OR state = 'running' OR state = 'failed'
                     OR state = 'cancelled' OR state = 'abandoned'),
    rank         INTEGER NOT NULL,             -- minus the priority: one ascending index serves the order
    due          INTEGER NOT NULL,
    decided_at   INTEGER NOT NULL,             -- when "due" was decided: due at once is due <= decided_at
    token        INTEGER NOT NULL DEFAULT 0 CHECK (token < 1 << 62),   -- both are counted up, and must not run over
    attempt      INTEGER NOT NULL DEFAULT 0 CHECK (attempt < 1 << 62),
    budget       INTEGER,                      -- attempts allowed since the last operator's retry, NULL: no end
    base         INTEGER NOT NULL DEFAULT 0,   -- the attempt number at the last operator's retry
    retried      INTEGER NOT NULL DEFAULT 0,   -- the token at the last operator's retry
    worker       INTEGER,
    shared       INTEGER NOT NULL DEFAULT 0,   -- claimed in a batch whose starts are stored with the ends
    solo         INTEGER NOT NULL DEFAULT 0,   -- was in a batch that died: to be run alone
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,                      -- when it reached a final state; NULL: unfinished
    key          TEXT,
    function     TEXT,
    policy       TEXT,                         -- JSON of the retry policy, NULL for the default one
    payload      TEXT,                         -- JSON; NULL: too large to be rewritten, in dbtaskqueue_large
    result       TEXT,                         -- JSON; NULL: none, or in dbtaskqueue_large
    command      INTEGER NOT NULL DEFAULT 0,   -- its payload is a command line, for workers that allow those
    limits       TEXT,                         -- JSON of "time", "stall" (seconds), "memory" (bytes); NULL: none
    suspended    INTEGER,                      -- the token of the claim that is to stand still: no transition resets it
    cpu          INTEGER,                      -- microseconds, and at most so many bytes: what the attempt took that
    memory       INTEGER                       -- made it done; NULL: not measured
) STRICT;

-- What a claim reads; finished tasks are not in it. Every index ends with the id by itself; here it stands before what
-- only filters, so that the order is that of a claim.
CREATE INDEX dbtaskqueue_claimable ON dbtaskqueue_task (queue, rank, due, id, command)
    WHERE state IN ('pending', 'failed');
CREATE INDEX dbtaskqueue_held ON dbtaskqueue_task (worker)
    WHERE state IN ('reserved', 'running');
CREATE UNIQUE INDEX dbtaskqueue_key ON dbtaskqueue_task (queue, key)
    WHERE key IS NOT NULL AND finished_at IS NULL;
-- For listing, counting and pruning. A task enters it when it ends: one index less is written by every enqueue.
CREATE INDEX dbtaskqueue_ended ON dbtaskqueue_task (queue, state)
    WHERE finished_at IS NOT NULL OR state = 'failed';

-- Values over a few hundred bytes, so that a change of state does not rewrite them.
CREATE TABLE dbtaskqueue_large (
    task   INTEGER NOT NULL,
    name   TEXT NOT NULL,          -- 'payload' or 'result'
    value  TEXT NOT NULL,
    PRIMARY KEY (task, name)
) STRICT;

-- What the attempt with this token tells while it runs, as its worker last told: 'progress' (JSON of done, total,
-- message, eta), 'output' (text), 'usage' (JSON of memory and cpu). Its task's row is not touched.
CREATE TABLE dbtaskqueue_note (
    task   INTEGER NOT NULL,
    token  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (task, token, name)
) STRICT;

-- One row for each attempt that did not end done; the running and the done one are in the task's row.
CREATE TABLE dbtaskqueue_attempt (
    task         INTEGER NOT NULL,
    token        INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    worker       INTEGER,
    started_at   INTEGER,
    finished_at  INTEGER,
    outcome      TEXT NOT NULL,
    error        TEXT,
    cpu          INTEGER,
    memory       INTEGER,
    PRIMARY KEY (task, token)
) STRICT, WITHOUT ROWID;
