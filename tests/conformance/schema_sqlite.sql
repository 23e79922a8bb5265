CREATE TABLE dbtaskqueue_action (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    who      TEXT NOT NULL,
    via      TEXT NOT NULL,
    verb     TEXT NOT NULL,
    queue    TEXT,
    task     INTEGER,
    detail   TEXT,
    changed  INTEGER NOT NULL,
    outcome  TEXT NOT NULL
) STRICT;

CREATE INDEX dbtaskqueue_action_task ON dbtaskqueue_action (task, id) WHERE task IS NOT NULL;

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
    memory       INTEGER, error_type TEXT,
    PRIMARY KEY (task, token)
) STRICT, WITHOUT ROWID;

CREATE INDEX dbtaskqueue_blocked ON dbtaskqueue_task (queue, id)
    WHERE blocked <> 0 AND finished_at IS NULL;

CREATE INDEX dbtaskqueue_claimable ON dbtaskqueue_task (queue, rank, due, id, command)
    WHERE state IN ('pending', 'failed') AND blocked = 0;

CREATE TABLE dbtaskqueue_duty (
    name     TEXT PRIMARY KEY,
    next_at  INTEGER NOT NULL,
    turns    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE dbtaskqueue_edge (
    parent     INTEGER NOT NULL,
    child      INTEGER NOT NULL,
    place      INTEGER NOT NULL,
    wants      INTEGER NOT NULL,
    met        INTEGER,
    arguments  TEXT,
    PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;

CREATE INDEX dbtaskqueue_edge_child ON dbtaskqueue_edge (child, place);

CREATE INDEX dbtaskqueue_edge_open ON dbtaskqueue_edge (parent, child) WHERE met IS NULL;

CREATE INDEX dbtaskqueue_ended ON dbtaskqueue_task (queue, state)
    WHERE finished_at IS NOT NULL OR state = 'failed';

CREATE INDEX dbtaskqueue_expiring ON dbtaskqueue_expiry (expires);

CREATE TABLE dbtaskqueue_expiry (
    task     INTEGER PRIMARY KEY,
    expires  INTEGER NOT NULL
) STRICT;

CREATE TABLE dbtaskqueue_gate (
    task   INTEGER PRIMARY KEY,
    wants  INTEGER NOT NULL,
    total  INTEGER NOT NULL,
    open   INTEGER NOT NULL CHECK (open >= 0),
    delay  INTEGER
) STRICT;

CREATE INDEX dbtaskqueue_held ON dbtaskqueue_task (worker)
    WHERE state IN ('reserved', 'running');

CREATE TABLE dbtaskqueue_history (
    period     INTEGER NOT NULL,
    at         INTEGER NOT NULL,
    worker     INTEGER NOT NULL,
    queue      TEXT NOT NULL,
    function   TEXT NOT NULL,
    done       INTEGER NOT NULL,
    failed     INTEGER NOT NULL,
    abandoned  INTEGER NOT NULL,
    cancelled  INTEGER NOT NULL,
    lost       INTEGER NOT NULL,
    released   INTEGER NOT NULL,
    seconds    INTEGER NOT NULL,
    cpu        INTEGER NOT NULL,
    memory     INTEGER,
    run_times  TEXT NOT NULL,
    wait_times TEXT NOT NULL,
    PRIMARY KEY (period, at, worker, queue, function)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX dbtaskqueue_key ON dbtaskqueue_task (queue, key)
    WHERE key IS NOT NULL AND finished_at IS NULL;

CREATE TABLE dbtaskqueue_large (
    task   INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (task, name)
) STRICT;

CREATE INDEX dbtaskqueue_next_tick ON dbtaskqueue_schedule (next_at) WHERE paused = 0;

CREATE TABLE dbtaskqueue_note (
    task   INTEGER NOT NULL,
    token  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL, at INTEGER, changes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (task, token, name)
) STRICT;

CREATE TABLE dbtaskqueue_operation (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    verb        TEXT NOT NULL,
    filters     TEXT NOT NULL,
    options     TEXT NOT NULL,
    who         TEXT NOT NULL,
    via         TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    highest     INTEGER NOT NULL,
    state       TEXT NOT NULL,
    position    TEXT,
    scanned     INTEGER NOT NULL DEFAULT 0,
    changed     INTEGER NOT NULL DEFAULT 0,
    refused     TEXT NOT NULL,
    runner      TEXT,
    step_at     INTEGER NOT NULL,
    ended_at    INTEGER
) STRICT;

CREATE INDEX dbtaskqueue_operation_open ON dbtaskqueue_operation (id) WHERE state = 'running';

CREATE TABLE dbtaskqueue_pruned (
    highest  INTEGER NOT NULL
) STRICT;

CREATE TABLE dbtaskqueue_queue (
    name    TEXT PRIMARY KEY,
    paused  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE dbtaskqueue_retention (
    queue      TEXT PRIMARY KEY,
    done       INTEGER,
    cancelled  INTEGER,
    abandoned  INTEGER,
    most       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE dbtaskqueue_sample (
    period      INTEGER NOT NULL,
    at          INTEGER NOT NULL,
    queue       TEXT NOT NULL,
    pending     INTEGER NOT NULL,
    failed      INTEGER NOT NULL,
    reserved    INTEGER NOT NULL,
    running     INTEGER NOT NULL,
    blocked     INTEGER NOT NULL,
    oldest_due  INTEGER,
    workers     INTEGER NOT NULL,
    PRIMARY KEY (period, at, queue)
) STRICT, WITHOUT ROWID;

CREATE TABLE dbtaskqueue_schedule (
    queue            TEXT NOT NULL,
    name             TEXT NOT NULL,
    target           TEXT NOT NULL,
    cron             TEXT,
    every            INTEGER,
    timezone         TEXT NOT NULL,
    overlap          TEXT NOT NULL,
    catch_up         TEXT NOT NULL,
    catch_up_window  INTEGER NOT NULL,
    jitter           INTEGER NOT NULL,
    paused           INTEGER NOT NULL DEFAULT 0,
    next_at          INTEGER,
    last_at          INTEGER,
    last_task        INTEGER,
    skipped          INTEGER NOT NULL DEFAULT 0,
    missed           INTEGER NOT NULL DEFAULT 0,
    skips_in_a_row   INTEGER NOT NULL DEFAULT 0,
    declared_at      INTEGER,
    PRIMARY KEY (queue, name)
) STRICT;

CREATE TABLE dbtaskqueue_schema (
    version  INTEGER NOT NULL,
    oldest   INTEGER NOT NULL
) STRICT;

CREATE TABLE dbtaskqueue_task (
    id           INTEGER PRIMARY KEY,
    queue        TEXT NOT NULL,

    state        TEXT NOT NULL CHECK (
                     state = 'pending' OR state = 'reserved' OR state = 'done' OR state = 'running' OR state = 'failed'
                     OR state = 'cancelled' OR state = 'abandoned'),
    rank         INTEGER NOT NULL,
    due          INTEGER NOT NULL,
    due_set_at   INTEGER NOT NULL,
    token        INTEGER NOT NULL DEFAULT 0 CHECK (token < 1 << 62),
    attempt      INTEGER NOT NULL DEFAULT 0 CHECK (attempt < 1 << 62),
    budget       INTEGER,
    retry_base         INTEGER NOT NULL DEFAULT 0,
    retry_token      INTEGER NOT NULL DEFAULT 0,
    worker       INTEGER,
    batched       INTEGER NOT NULL DEFAULT 0,
    isolated         INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    key          TEXT,
    function     TEXT,
    payload      TEXT,
    result       TEXT,
    command      INTEGER NOT NULL DEFAULT 0,
    suspended    INTEGER,
    cpu          INTEGER,
    memory       INTEGER
, options TEXT, meta TEXT, blocked INTEGER NOT NULL DEFAULT 0
    CHECK (blocked = 0 OR state NOT IN ('reserved', 'running')), flow INTEGER NOT NULL DEFAULT 0, expires INTEGER, reason TEXT) STRICT;

CREATE TABLE dbtaskqueue_tick (
    queue     TEXT NOT NULL,
    schedule  TEXT NOT NULL,
    at        INTEGER NOT NULL,
    outcome   TEXT NOT NULL,
    task      INTEGER,
    missed    INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, schedule, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX dbtaskqueue_tick_at ON dbtaskqueue_tick (at);

CREATE TABLE dbtaskqueue_undecided (
    parent  INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE dbtaskqueue_worker (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    host       TEXT NOT NULL,
    pid        INTEGER NOT NULL,
    boot       TEXT,
    namespace  TEXT,
    started    INTEGER,
    lease      REAL NOT NULL,
    beat       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    lost_at    INTEGER,
    executor   TEXT
, queues TEXT, functions TEXT, commands INTEGER NOT NULL DEFAULT 0, version TEXT, slots INTEGER) STRICT;

-- version, oldest: [(5, 4)]
