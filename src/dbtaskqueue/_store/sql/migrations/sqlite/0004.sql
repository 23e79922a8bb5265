-- Schedules, dependencies and expiry. Programs of earlier versions would claim a blocked task and would end a parent
-- without its children, so "oldest" becomes 4.

-- "blocked" is a bit mask: 1: a parent has not ended. The claim's index leaves blocked tasks out. The check also stops
-- a program of an earlier version that still runs on a server.
ALTER TABLE dbtaskqueue_task ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0
    CHECK (blocked = 0 OR state NOT IN ('reserved', 'running'));
-- "flow" is a bit mask: 1: has had children, which its end decides; 2: has had parents. Plain tasks have 0.
ALTER TABLE dbtaskqueue_task ADD COLUMN flow INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dbtaskqueue_task ADD COLUMN expires INTEGER;            -- no attempt starts after this time
ALTER TABLE dbtaskqueue_task ADD COLUMN reason TEXT;                -- why it ended without an attempt; NULL: by itself

DROP INDEX dbtaskqueue_claimable;
CREATE INDEX dbtaskqueue_claimable ON dbtaskqueue_task (queue, rank, due, id, command)
    WHERE state IN ('pending', 'failed') AND blocked = 0;
CREATE INDEX dbtaskqueue_blocked ON dbtaskqueue_task (queue, id)
    WHERE blocked <> 0 AND finished_at IS NULL;

ALTER TABLE dbtaskqueue_worker ADD COLUMN commands INTEGER NOT NULL DEFAULT 0;   -- it runs command lines, too

-- One row for each parent of each child.
CREATE TABLE dbtaskqueue_edge (
    parent     INTEGER NOT NULL,
    child      INTEGER NOT NULL,
    place      INTEGER NOT NULL,       -- the order of a child's parents
    wants      INTEGER NOT NULL,       -- the child's "when": 1 done, 2 ended, 3 failed
    met        INTEGER,                -- NULL: the parent has not ended; 1: it ended as wanted; 0: otherwise
    arguments  TEXT,                   -- JSON list of the places in the child's payload that get the parent's result
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
CREATE INDEX dbtaskqueue_edge_child ON dbtaskqueue_edge (child, place);
CREATE INDEX dbtaskqueue_edge_open ON dbtaskqueue_edge (parent, child) WHERE met IS NULL;

-- One row for each task with parents: a counter, so that the end of a parent does not read the other parents.
CREATE TABLE dbtaskqueue_gate (
    task   INTEGER PRIMARY KEY,
    wants  INTEGER NOT NULL,                       -- as in dbtaskqueue_edge
    total  INTEGER NOT NULL,
    open   INTEGER NOT NULL CHECK (open >= 0),     -- parents that have not ended
    delay  INTEGER                                 -- microseconds from when it opens until the task is due; NULL: "due" holds
) STRICT;

-- Final tasks some of whose children are not decided yet: a transaction decides a limited number of them.
CREATE TABLE dbtaskqueue_undecided (
    parent  INTEGER PRIMARY KEY
) STRICT;

-- Tasks that may expire, in the order of that time. A row goes when its time has passed and the task is not held.
CREATE TABLE dbtaskqueue_expiry (
    task     INTEGER PRIMARY KEY,
    expires  INTEGER NOT NULL
) STRICT;
CREATE INDEX dbtaskqueue_expiring ON dbtaskqueue_expiry (expires);

CREATE TABLE dbtaskqueue_schedule (
    queue            TEXT NOT NULL,
    name             TEXT NOT NULL,
    target           TEXT NOT NULL,                -- JSON of what each tick enqueues
    cron             TEXT,                         -- an expression; NULL: "every" holds
    every            INTEGER,                      -- microseconds
    timezone         TEXT NOT NULL,
    overlap          TEXT NOT NULL,                -- skip, allow, queue or replace
    catch_up         TEXT NOT NULL,                -- latest, all or none
    catch_up_window  INTEGER NOT NULL,             -- microseconds
    jitter           INTEGER NOT NULL,             -- microseconds
    paused           INTEGER NOT NULL DEFAULT 0,
    next_at          INTEGER,                      -- the next tick; NULL: it never fires again
    last_at          INTEGER,                      -- the last tick that was made, skipped or missed
    last_task        INTEGER,                      -- the task of the last tick that made one
    skipped          INTEGER NOT NULL DEFAULT 0,
    missed           INTEGER NOT NULL DEFAULT 0,
    skips_in_a_row   INTEGER NOT NULL DEFAULT 0,
    declared_at      INTEGER,                      -- when a worker last declared it; NULL: made by schedule()
    PRIMARY KEY (queue, name)
) STRICT;
CREATE INDEX dbtaskqueue_next_tick ON dbtaskqueue_schedule (next_at) WHERE paused = 0;

-- One row for each tick that ran or was skipped, and one for ticks that were missed together. The primary key is what
-- keeps a tick from running twice.
CREATE TABLE dbtaskqueue_tick (
    queue     TEXT NOT NULL,
    schedule  TEXT NOT NULL,
    at        INTEGER NOT NULL,
    outcome   TEXT NOT NULL,                       -- ran, skipped or missed
    task      INTEGER,                             -- the task that it made; of a skipped one, the unfinished task
    missed    INTEGER NOT NULL DEFAULT 0,          -- of a "missed" row, the number of ticks
    PRIMARY KEY (queue, schedule, at)
) STRICT, WITHOUT ROWID;
CREATE INDEX dbtaskqueue_tick_at ON dbtaskqueue_tick (at);

UPDATE dbtaskqueue_schema SET version = 4, oldest = 4;
