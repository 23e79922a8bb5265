-- See 0005.sql of SQLite. Each statement commits by itself, so each may be run again.
ALTER TABLE dbtaskqueue_note
    ADD COLUMN IF NOT EXISTS at BIGINT,
    ADD COLUMN IF NOT EXISTS changes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE dbtaskqueue_worker
    ADD COLUMN IF NOT EXISTS version VARCHAR(64),
    ADD COLUMN IF NOT EXISTS slots INTEGER;

CREATE TABLE IF NOT EXISTS dbtaskqueue_history (
    period     INTEGER NOT NULL,
    at         BIGINT NOT NULL,
    worker     BIGINT NOT NULL,
    queue      VARCHAR(128) NOT NULL,
    function   VARCHAR(500) NOT NULL,
    done       BIGINT NOT NULL,
    failed     BIGINT NOT NULL,
    abandoned  BIGINT NOT NULL,
    cancelled  BIGINT NOT NULL,
    lost       BIGINT NOT NULL,
    released   BIGINT NOT NULL,
    seconds    BIGINT NOT NULL,
    cpu        BIGINT NOT NULL,
    memory     BIGINT,
    run_times  LONGTEXT NOT NULL,
    wait_times LONGTEXT NOT NULL,
    PRIMARY KEY (period, at, worker, queue, function)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_sample (
    period      INTEGER NOT NULL,
    at          BIGINT NOT NULL,
    queue       VARCHAR(128) NOT NULL,
    pending     BIGINT NOT NULL,
    failed      BIGINT NOT NULL,
    reserved    BIGINT NOT NULL,
    running     BIGINT NOT NULL,
    blocked     BIGINT NOT NULL,
    oldest_due  BIGINT,
    workers     BIGINT NOT NULL,
    PRIMARY KEY (period, at, queue)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_duty (
    name     VARCHAR(128) NOT NULL PRIMARY KEY,
    next_at  BIGINT NOT NULL,
    turns    BIGINT NOT NULL DEFAULT 0
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_retention (
    queue      VARCHAR(128) NOT NULL PRIMARY KEY,
    done       BIGINT,
    cancelled  BIGINT,
    abandoned  BIGINT,
    most       BIGINT
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_action (
    id       BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at       BIGINT NOT NULL,
    who      VARCHAR(255) NOT NULL,
    via      VARCHAR(16) NOT NULL,
    verb     VARCHAR(64) NOT NULL,
    queue    VARCHAR(128),
    task     BIGINT,
    detail   LONGTEXT,
    changed  BIGINT NOT NULL,
    outcome  TEXT NOT NULL,
    KEY dbtaskqueue_action_task (task, id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_operation (
    id          BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    verb        VARCHAR(64) NOT NULL,
    filters     LONGTEXT NOT NULL,
    options     LONGTEXT NOT NULL,
    who         VARCHAR(255) NOT NULL,
    via         VARCHAR(16) NOT NULL,
    created_at  BIGINT NOT NULL,
    highest     BIGINT NOT NULL,
    state       VARCHAR(16) NOT NULL,
    position    TEXT,
    scanned     BIGINT NOT NULL DEFAULT 0,
    changed     BIGINT NOT NULL DEFAULT 0,
    refused     LONGTEXT NOT NULL,
    runner      VARCHAR(255),
    step_at     BIGINT NOT NULL,
    ended_at    BIGINT,
    KEY dbtaskqueue_operation_open (state, id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

UPDATE dbtaskqueue_schema SET version = 5;
INSERT INTO dbtaskqueue_schema (version, oldest, identity)
SELECT 5, 4, UUID() FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_schema);
