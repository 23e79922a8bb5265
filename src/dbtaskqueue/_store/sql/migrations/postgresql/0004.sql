-- See 0004.sql of SQLite.
ALTER TABLE {{schema}}dbtaskqueue_task
    ADD COLUMN blocked SMALLINT NOT NULL DEFAULT 0,
    ADD COLUMN flow SMALLINT NOT NULL DEFAULT 0,
    ADD COLUMN expires BIGINT,
    ADD COLUMN reason TEXT,
    ADD CONSTRAINT dbtaskqueue_blocked_check CHECK (blocked = 0 OR state NOT IN ('reserved', 'running'));

DROP INDEX {{schema}}dbtaskqueue_claimable;
CREATE INDEX dbtaskqueue_claimable ON {{schema}}dbtaskqueue_task (queue, rank, due, id, command)
    WHERE state IN ('pending', 'failed') AND blocked = 0;
CREATE INDEX dbtaskqueue_blocked ON {{schema}}dbtaskqueue_task (queue, id)
    WHERE blocked <> 0 AND finished_at IS NULL;

ALTER TABLE {{schema}}dbtaskqueue_worker ADD COLUMN commands SMALLINT NOT NULL DEFAULT 0;

CREATE TABLE {{schema}}dbtaskqueue_edge (
    parent     BIGINT NOT NULL,
    child      BIGINT NOT NULL,
    place      INTEGER NOT NULL,
    wants      SMALLINT NOT NULL,
    met        SMALLINT,
    arguments  TEXT,
    PRIMARY KEY (parent, child)
);
CREATE INDEX dbtaskqueue_edge_child ON {{schema}}dbtaskqueue_edge (child, place);
CREATE INDEX dbtaskqueue_edge_open ON {{schema}}dbtaskqueue_edge (parent, child) WHERE met IS NULL;

-- The counter changes in place: no index has it, and its pages keep room.
CREATE TABLE {{schema}}dbtaskqueue_gate (
    task   BIGINT PRIMARY KEY,
    wants  SMALLINT NOT NULL,
    total  INTEGER NOT NULL,
    open   INTEGER NOT NULL CHECK (open >= 0),
    delay  BIGINT
) WITH (fillfactor = 50);

CREATE TABLE {{schema}}dbtaskqueue_undecided (
    parent  BIGINT PRIMARY KEY
);

CREATE TABLE {{schema}}dbtaskqueue_expiry (
    task     BIGINT PRIMARY KEY,
    expires  BIGINT NOT NULL
);
CREATE INDEX dbtaskqueue_expiring ON {{schema}}dbtaskqueue_expiry (expires);

CREATE TABLE {{schema}}dbtaskqueue_schedule (
    queue            TEXT COLLATE "C" NOT NULL,
    name             TEXT COLLATE "C" NOT NULL,
    target           TEXT NOT NULL,
    cron             TEXT,
    every            BIGINT,
    timezone         TEXT NOT NULL,
    overlap          TEXT NOT NULL,
    catch_up         TEXT NOT NULL,
    catch_up_window  BIGINT NOT NULL,
    jitter           BIGINT NOT NULL,
    paused           SMALLINT NOT NULL DEFAULT 0,
    next_at          BIGINT,
    last_at          BIGINT,
    last_task        BIGINT,
    skipped          BIGINT NOT NULL DEFAULT 0,
    missed           BIGINT NOT NULL DEFAULT 0,
    skips_in_a_row   BIGINT NOT NULL DEFAULT 0,
    declared_at      BIGINT,
    PRIMARY KEY (queue, name)
);
CREATE INDEX dbtaskqueue_next_tick ON {{schema}}dbtaskqueue_schedule (next_at) WHERE paused = 0;

CREATE TABLE {{schema}}dbtaskqueue_tick (
    queue     TEXT COLLATE "C" NOT NULL,
    schedule  TEXT COLLATE "C" NOT NULL,
    at        BIGINT NOT NULL,
    outcome   TEXT NOT NULL,
    task      BIGINT,
    missed    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, schedule, at)
);
CREATE INDEX dbtaskqueue_tick_at ON {{schema}}dbtaskqueue_tick (at);

UPDATE {{schema}}dbtaskqueue_schema SET version = 4, oldest = 4;
