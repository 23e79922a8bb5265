-- Times are microseconds since 1970 (UTC). What the columns mean stands in ../sqlite/0001.sql. A change of the
-- schema commits by itself here, so each statement may find its work done; the version's row comes last.

CREATE TABLE IF NOT EXISTS dbtaskqueue_schema (
    version   INTEGER NOT NULL PRIMARY KEY,
    oldest    INTEGER NOT NULL,
    identity  CHAR(36) NOT NULL        -- tells this database from every other one
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS dbtaskqueue_queue (
    name    VARCHAR(128) NOT NULL PRIMARY KEY,
    paused  TINYINT NOT NULL
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

CREATE TABLE IF NOT EXISTS dbtaskqueue_worker (
    id          BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    host        VARCHAR(255) NOT NULL,
    pid         BIGINT NOT NULL,
    boot        VARCHAR(255),
    namespace   VARCHAR(255),
    started     BIGINT,
    lease       DOUBLE NOT NULL,
    beat        BIGINT NOT NULL DEFAULT 0,
    created_at  BIGINT NOT NULL,
    lost_at     BIGINT,
    executor    VARCHAR(16),
    KEY dbtaskqueue_lost (lost_at)     -- whoever forgets the lost must not wait for the locks of the living
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin;

-- MariaDB has no partial index: the generated columns are NULL where a task does not belong into theirs, so that
-- a claim finds what waits side by side, and a change of state rewrites only the entries that it means. Stored,
-- since the server itself has to look after an index on a virtual column.
CREATE TABLE IF NOT EXISTS dbtaskqueue_task (
    id            BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    queue         VARCHAR(128) NOT NULL,
    state         VARCHAR(9) NOT NULL CHECK (
                      state IN ('pending', 'reserved', 'running', 'failed', 'done', 'cancelled', 'abandoned')),
    rank          INTEGER NOT NULL,
    due           BIGINT NOT NULL,
    decided_at    BIGINT NOT NULL,
    token         BIGINT NOT NULL DEFAULT 0,
    attempt       BIGINT NOT NULL DEFAULT 0,
    budget        BIGINT,
    base          BIGINT NOT NULL DEFAULT 0,
    retried       BIGINT NOT NULL DEFAULT 0,
    worker        BIGINT,
    shared        TINYINT NOT NULL DEFAULT 0,
    solo          TINYINT NOT NULL DEFAULT 0,
    cancel_requested TINYINT NOT NULL DEFAULT 0,
    created_at    BIGINT NOT NULL,
    started_at    BIGINT,
    finished_at   BIGINT,
    `key`         VARCHAR(255),
    function      VARCHAR(500),
    policy        TEXT,
    payload       TEXT,
    result        TEXT,
    command       TINYINT NOT NULL DEFAULT 0,
    limits        TEXT,
    suspended     BIGINT,
    cpu           BIGINT,
    memory        BIGINT,
    waiting       VARCHAR(128) AS (CASE WHEN state IN ('pending', 'failed') THEN queue END) PERSISTENT,
    holder        BIGINT AS (CASE WHEN state IN ('reserved', 'running') THEN worker END) PERSISTENT,
    ended         VARCHAR(9) AS (CASE WHEN finished_at IS NOT NULL OR state = 'failed' THEN state END) PERSISTENT,
    open_key      VARCHAR(255) AS (CASE WHEN finished_at IS NULL THEN `key` END) PERSISTENT,
    KEY dbtaskqueue_claimable (waiting, rank, due, id, command),
    KEY dbtaskqueue_held (holder),
    UNIQUE KEY dbtaskqueue_key (open_key, queue),
    KEY dbtaskqueue_ended (ended, queue, id)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_large (
    task   BIGINT NOT NULL,
    name   VARCHAR(255) NOT NULL,
    value  LONGTEXT NOT NULL,
    PRIMARY KEY (task, name)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_note (
    task   BIGINT NOT NULL,
    token  BIGINT NOT NULL,
    name   VARCHAR(255) NOT NULL,
    value  MEDIUMTEXT NOT NULL,
    PRIMARY KEY (task, token, name)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

CREATE TABLE IF NOT EXISTS dbtaskqueue_attempt (
    task         BIGINT NOT NULL,
    token        BIGINT NOT NULL,
    number       BIGINT NOT NULL,
    worker       BIGINT,
    started_at   BIGINT,
    finished_at  BIGINT,
    outcome      VARCHAR(16) NOT NULL,
    error        LONGTEXT,
    cpu          BIGINT,
    memory       BIGINT,
    PRIMARY KEY (task, token)
) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin ROW_FORMAT = DYNAMIC;

INSERT INTO dbtaskqueue_schema (version, oldest, identity)
SELECT 1, 1, UUID() FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM dbtaskqueue_schema);
