-- See 0004.sql of SQLite. Each statement commits by itself, so each may be run again.
ALTER TABLE dbtaskqueue_task
    ADD COLUMN IF NOT EXISTS blocked TINYINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS flow SMALLINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS expires BIGINT,
    ADD COLUMN IF NOT EXISTS reason TEXT,
    ADD CONSTRAINT IF NOT EXISTS dbtaskqueue_blocked_check
        CHECK (blocked = 0 OR state NOT IN ('reserved', 'running'));
-- This copies the table, since a stored column changes.
ALTER TABLE dbtaskqueue_task
    MODIFY COLUMN waiting VARCHAR(128)
        AS (CASE WHEN state IN ('pending', 'failed') AND blocked = 0 THEN queue END) PERSISTENT,
    ADD COLUMN IF NOT EXISTS blocked_in VARCHAR(128)
        AS (CASE WHEN blocked <> 0 AND finished_at IS NULL THEN queue END) PERSISTENT,
    ADD KEY IF NOT EXISTS dbtaskqueue_blocked (blocked_in, id);

ALTER TABLE dbtaskqueue_worker ADD COLUMN IF NOT EXISTS commands TINYINT NOT NULL DEFAULT 0;

CREATE TABLE IF NOT EXISTS dbtaskqueue_edge (
    parent       BIGINT NOT NULL,
    child        BIGINT NOT NULL,
    place        INTEGER NOT NULL,
    wants        TINYINT NOT NULL,
    met          TINYINT,
    arguments    TEXT,
    open_parent  BIGINT AS (CASE WHEN met IS NULL THEN parent END) PERSISTENT,
    PRIMARY KEY (parent, child),
    KEY dbtaskqueue_edge_child (child, place),
    KEY dbtaskqueue_edge_open (open_parent, child)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_gate (
    task   BIGINT NOT NULL PRIMARY KEY,
    wants  TINYINT NOT NULL,
    total  INTEGER NOT NULL,
    open   INTEGER NOT NULL CHECK (open >= 0),
    delay  BIGINT
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS dbtaskqueue_undecided (
    parent  BIGINT NOT NULL PRIMARY KEY
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS dbtaskqueue_expiry (
    task     BIGINT NOT NULL PRIMARY KEY,
    expires  BIGINT NOT NULL,
    KEY dbtaskqueue_expiring (expires)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS dbtaskqueue_schedule (
    queue            VARCHAR(128) NOT NULL,
    name             VARCHAR(255) NOT NULL,
    target           LONGTEXT NOT NULL,
    cron             TEXT,
    every            BIGINT,
    timezone         VARCHAR(255) NOT NULL,
    overlap          VARCHAR(16) NOT NULL,
    catch_up         VARCHAR(16) NOT NULL,
    catch_up_window  BIGINT NOT NULL,
    jitter           BIGINT NOT NULL,
    paused           TINYINT NOT NULL DEFAULT 0,
    next_at          BIGINT,
    last_at          BIGINT,
    last_task        BIGINT,
    skipped          BIGINT NOT NULL DEFAULT 0,
    missed           BIGINT NOT NULL DEFAULT 0,
    skips_in_a_row   BIGINT NOT NULL DEFAULT 0,
    declared_at      BIGINT,
    PRIMARY KEY (queue, name),
    KEY dbtaskqueue_next_tick (paused, next_at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_tick (
    queue     VARCHAR(128) NOT NULL,
    schedule  VARCHAR(255) NOT NULL,
    at        BIGINT NOT NULL,
    outcome   VARCHAR(16) NOT NULL,
    task      BIGINT,
    missed    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, schedule, at),
    KEY dbtaskqueue_tick_at (at)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

UPDATE dbtaskqueue_schema SET version = 4, oldest = 4;
