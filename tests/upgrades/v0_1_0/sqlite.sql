-- A database of dbtaskqueue 0.1.0 on sqlite, written by make.py.

PRAGMA journal_mode = WAL;

CREATE TABLE dbtaskqueue_schema (
    version  INTEGER NOT NULL,
    oldest   INTEGER NOT NULL
) STRICT;

INSERT INTO dbtaskqueue_schema (version, oldest) VALUES (1, 1);

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
    boot       TEXT,
    namespace  TEXT,
    started    INTEGER,
    lease      REAL NOT NULL,
    beat       INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    lost_at    INTEGER,
    executor   TEXT
) STRICT;

CREATE TABLE dbtaskqueue_task (
    id           INTEGER PRIMARY KEY,
    queue        TEXT NOT NULL,

    state        TEXT NOT NULL CHECK (
                     state = 'pending' OR state = 'reserved' OR state = 'done' OR state = 'running' OR state = 'failed'
                     OR state = 'cancelled' OR state = 'abandoned'),
    rank         INTEGER NOT NULL,
    due          INTEGER NOT NULL,
    decided_at   INTEGER NOT NULL,
    token        INTEGER NOT NULL DEFAULT 0 CHECK (token < 1 << 62),
    attempt      INTEGER NOT NULL DEFAULT 0 CHECK (attempt < 1 << 62),
    budget       INTEGER,
    base         INTEGER NOT NULL DEFAULT 0,
    retried      INTEGER NOT NULL DEFAULT 0,
    worker       INTEGER,
    shared       INTEGER NOT NULL DEFAULT 0,
    solo         INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    started_at   INTEGER,
    finished_at  INTEGER,
    key          TEXT,
    function     TEXT,
    policy       TEXT,
    payload      TEXT,
    result       TEXT,
    command      INTEGER NOT NULL DEFAULT 0,
    limits       TEXT,
    suspended    INTEGER,
    cpu          INTEGER,
    memory       INTEGER
) STRICT;

CREATE INDEX dbtaskqueue_claimable ON dbtaskqueue_task (queue, rank, due, id, command)
    WHERE state IN ('pending', 'failed');

CREATE INDEX dbtaskqueue_held ON dbtaskqueue_task (worker)
    WHERE state IN ('reserved', 'running');

CREATE UNIQUE INDEX dbtaskqueue_key ON dbtaskqueue_task (queue, key)
    WHERE key IS NOT NULL AND finished_at IS NULL;

CREATE INDEX dbtaskqueue_ended ON dbtaskqueue_task (queue, state)
    WHERE finished_at IS NOT NULL OR state = 'failed';

CREATE TABLE dbtaskqueue_large (
    task   INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (task, name)
) STRICT;

CREATE TABLE dbtaskqueue_note (
    task   INTEGER NOT NULL,
    token  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    value  TEXT NOT NULL,
    PRIMARY KEY (task, token, name)
) STRICT;

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

ALTER TABLE dbtaskqueue_worker ADD COLUMN queues TEXT;

ALTER TABLE dbtaskqueue_worker ADD COLUMN functions TEXT;

UPDATE dbtaskqueue_schema SET version = 2;


INSERT INTO dbtaskqueue_queue
("name", "paused") VALUES
('paused', 1),
('resumed', 0);

INSERT INTO dbtaskqueue_worker
("id", "host", "pid", "boot", "namespace", "started", "lease", "beat", "created_at", "lost_at", "executor", "queues", "functions") VALUES
(2, 'worker1.example', 4002, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8002, 30.0, 42, 1709282202000000, 1709282232000000, NULL, NULL, NULL),
(12, 'worker1.example', 4012, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8012, 30.0, 52, 1709282892000000, 1709282922000000, NULL, NULL, NULL),
(15, 'worker1.example', 4015, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8015, 30.0, 55, 1709283000000000, 1709283030000000, 'thread', '["isolated"]', '[null]'),
(18, 'worker1.example', 4018, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8018, 30.0, 58, 1709283084000000, 1709283114000000, NULL, NULL, NULL),
(19, 'worker1.example', 4019, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8019, 1.0, 59, 1709283115000000, NULL, NULL, NULL, NULL),
(21, 'worker1.example', 4021, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8021, 1000000000.0, 61, 1709283233000000, NULL, 'process', '["held"]', '[null]'),
(22, 'worker1.example', 4022, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8022, 1000000000.0, 62, 1709283236000000, NULL, NULL, NULL, NULL),
(24, 'worker1.example', 4024, '7d1f6c52-5a0e-4d0b-9a3e-2f8f6f1c0a11', 'pid:[4026531836]', 8024, 1.0, 64, 1709283287000000, NULL, 'thread', '["batch"]', '[null]');

INSERT INTO dbtaskqueue_task
("id", "queue", "state", "rank", "due", "decided_at", "token", "attempt", "budget", "base", "retried", "worker", "shared", "solo", "cancel_requested", "created_at", "started_at", "finished_at", "key", "function", "policy", "payload", "result", "command", "limits", "suspended", "cpu", "memory") VALUES
(1, 'waiting', 'failed', 0, 1709282855000000, 1709281655000000, 7, 7, 10, 0, 0, NULL, 0, 0, 0, 1709280001000000, 1709281635000000, NULL, NULL, NULL, NULL, '{"n":7}', NULL, 0, NULL, NULL, NULL, NULL),
(2, 'waiting', 'failed', 0, 1709282622000000, 1709282022000000, 3, 3, 4, 0, 0, NULL, 0, 0, 0, 1709281656000000, 1709282002000000, NULL, NULL, NULL, '{"delay": 100.0, "linear": 2, "factor": 3, "max_delay": 1000.0, "jitter": 0.0, "max_attempts": 4}', '"policy"', NULL, 0, NULL, NULL, NULL, NULL),
(3, 'waiting', 'pending', 0, 1709285051000000, 1709282051000000, 2, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282023000000, 1709282031000000, NULL, NULL, NULL, NULL, '["a","b"]', NULL, 0, NULL, NULL, NULL, NULL),
(4, 'waiting', 'failed', 0, 1709282238000000, 1709282178000000, 5, 3, 3, 2, 3, NULL, 0, 0, 0, 1709282052000000, 1709282158000000, NULL, 'retried', NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(5, 'waiting', 'failed', 0, 1709282701000000, 1709282201000000, 1, 1, NULL, 0, 0, NULL, 0, 0, 0, 1709282179000000, 1709282181000000, NULL, NULL, NULL, '{"delay": 500.0, "linear": 1, "factor": 1.5, "max_delay": 2000.0, "jitter": 0, "max_attempts": null}', 'null', NULL, 0, NULL, NULL, NULL, NULL),
(6, 'waiting', 'failed', 0, 1709282232000000, 1709282232000000, 2, 1, 10, 0, 0, NULL, 0, 0, 0, 1709282202000000, 1709282202000000, NULL, NULL, NULL, NULL, '"lost once"', NULL, 0, NULL, NULL, NULL, NULL),
(7, 'waiting', 'pending', 0, 1709282233000000, 1709282233000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282233000000, NULL, NULL, NULL, NULL, NULL, '"hello"', NULL, 0, NULL, NULL, NULL, NULL),
(8, 'waiting', 'pending', -5, 1709282234000000, 1709282234000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282234000000, NULL, NULL, NULL, NULL, NULL, '{"text":"Grüße, 世界 🙂","quote":"it''s \"so\" \\ 100 %"}', NULL, 0, NULL, NULL, NULL, NULL),
(9, 'waiting', 'pending', 32768, 1709282235000000, 1709282235000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282235000000, NULL, NULL, NULL, NULL, NULL, '[1,-2,9223372036854775807,-9223372036854775808,1.5,1e+300,true,null]', NULL, 0, NULL, NULL, NULL, NULL),
(10, 'waiting', 'pending', 0, 1709282296000000, 1709282236000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282236000000, NULL, NULL, NULL, NULL, NULL, '"later"', NULL, 0, NULL, NULL, NULL, NULL),
(11, 'waiting', 'pending', 0, 1704067200000000, 1709282237000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282237000000, NULL, NULL, NULL, NULL, NULL, '"earlier"', NULL, 0, NULL, NULL, NULL, NULL),
(12, 'waiting', 'pending', 0, 1709282238000000, 1709282238000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282238000000, NULL, NULL, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(13, 'waiting', 'pending', 0, 1709282239000000, 1709282239000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282239000000, NULL, NULL, NULL, NULL, NULL, '"a\nb;\nc\t''d''\\"', NULL, 0, NULL, NULL, NULL, NULL),
(14, 'waiting', 'pending', 0, 1709282240000000, 1709282240000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282240000000, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, NULL, NULL, NULL, NULL),
(15, 'waiting', 'pending', 0, 1709282241000000, 1709282241000000, 0, 0, 7, 0, 0, NULL, 0, 0, 0, 1709282241000000, NULL, NULL, NULL, NULL, '{"delay": 120.0, "linear": 1, "factor": 4.0, "max_delay": 1000000.0, "jitter": 0.0, "max_attempts": 7}', 'null', NULL, 0, NULL, NULL, NULL, NULL),
(16, 'waiting', 'pending', 0, 1709282242000000, 1709282242000000, 0, 0, 1, 0, 0, NULL, 0, 0, 0, 1709282242000000, NULL, NULL, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(17, 'waiting', 'pending', 0, 1709282243000000, 1709282243000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282243000000, NULL, NULL, 'invoice: 7 “ü”', NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(18, 'waiting', 'pending', 0, 1709282244000000, 1709282244000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282244000000, NULL, NULL, NULL, NULL, NULL, 'null', NULL, 0, '{"time": 3600.0, "stall": 90.5, "memory": 2147483648}', NULL, NULL, NULL),
(19, 'waiting', 'pending', 0, 1709282245000000, 1709282245000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282245000000, NULL, NULL, NULL, NULL, NULL, 'null', NULL, 0, '{"time": 7200.0}', NULL, NULL, NULL),
(20, 'waiting', 'pending', 0, 1709282246000000, 1709282246000000, 0, 0, NULL, 0, 0, NULL, 0, 0, 0, 1709282246000000, NULL, NULL, NULL, NULL, '{"delay": 7.0, "linear": 5, "factor": 1.5, "max_delay": 86400.0, "jitter": 0.0, "max_attempts": null}', 'null', NULL, 0, '{"time": 3600.0, "stall": 90.5, "memory": 2147483648}', NULL, NULL, NULL),
(21, 'waiting', 'pending', 0, 1709282247000000, 1709282247000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282247000000, NULL, NULL, NULL, NULL, '{"delay": 1', '"damaged"', NULL, 0, '{"time": 60', NULL, NULL, NULL),
(22, 'waiting', 'pending', 0, 1709282248000000, 1709282248000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282248000000, NULL, NULL, NULL, NULL, '[1]', '"damaged in another way"', NULL, 0, '7', NULL, NULL, NULL),
(23, 'waiting', 'pending', 0, 1709282249000000, 1709282249000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282249000000, NULL, NULL, NULL, NULL, '{"delay": "soon"}', '"damaged in a third way"', NULL, 0, '{"time": "soon"}', NULL, NULL, NULL),
(24, 'waiting', 'pending', -7, 4102444800000000, 1709282250000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282250000000, NULL, NULL, 'future', NULL, NULL, '"future"', NULL, 0, NULL, NULL, NULL, NULL),
(25, 'waiting', 'pending', -2, 1709282251000000, 1709282251000000, 0, 0, 3, 0, 0, NULL, 0, 0, 0, 1709282251000000, NULL, NULL, NULL, 'thumbnail', NULL, '{"args":["a.png"],"kwargs":{"width":640}}', NULL, 0, NULL, NULL, NULL, NULL),
(26, 'waiting', 'cancelled', 0, 1709282252000000, 1709282252000000, 1, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282252000000, NULL, 1709282252000000, 'free again', NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(27, 'steps', 'failed', 0, 1709282314000000, 1709282254000000, 1, 1, 10, 0, 0, NULL, 0, 0, 0, 1709282253000000, 1709282254000000, NULL, NULL, NULL, NULL, '{"file":"café.csv"}', NULL, 0, NULL, NULL, NULL, NULL),
(28, 'ended', 'done', 0, 1709282275000000, 1709282275000000, 1, 1, 10, 0, 0, 4, 0, 0, 0, 1709282275000000, 1709282276000000, 1709282276000000, 'done', NULL, NULL, '{"id":1}', '{"orders":412}', 0, NULL, NULL, 250000, 31457280),
(29, 'ended', 'done', 0, 1709282297000000, 1709282297000000, 1, 1, 10, 0, 0, 5, 0, 0, 0, 1709282297000000, 1709282298000000, 1709282298000000, NULL, NULL, NULL, 'null', '"two\nlines"', 0, NULL, NULL, NULL, NULL),
(30, 'ended', 'done', 0, 1709282319000000, 1709282319000000, 1, 1, 10, 0, 0, 6, 0, 0, 0, 1709282319000000, 1709282320000000, 1709282320000000, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(31, 'ended', 'done', 0, 1709282341000000, 1709282341000000, 1, 1, 10, 0, 0, 7, 0, 0, 0, 1709282341000000, 1709282342000000, 1709282342000000, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(32, 'ended', 'done', 0, 1709282588000000, 1709282588000000, 4, 3, 10, 0, 0, 9, 0, 0, 0, 1709282363000000, 1709282589000000, 1709282589000000, NULL, NULL, NULL, '"again"', '{"orders":412}', 0, NULL, NULL, 250000, 31457280),
(33, 'ended', 'done', 3, 1709282609000000, 1709282609000000, 1, 1, 10, 0, 0, 10, 0, 0, 0, 1709282609000000, 1709282610000000, 1709282610000000, NULL, 'thumbnail', NULL, '{"args":["b.png"],"kwargs":{}}', '{"path":"b.png","width":320}', 0, NULL, NULL, NULL, NULL),
(34, 'ended', 'abandoned', 0, 1709282611000000, 1709282612000000, 1, 1, 1, 0, 0, 11, 0, 0, 0, 1709282611000000, 1709282612000000, 1709282612000000, NULL, NULL, NULL, '{"to":"nobody"}', NULL, 0, NULL, NULL, NULL, NULL),
(35, 'ended', 'abandoned', 0, 1709282633000000, 1709282655000000, 1, 1, 10, 0, 0, 8, 0, 0, 0, 1709282633000000, 1709282635000000, 1709282655000000, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(36, 'ended', 'done', 0, 1709282842000000, 1709282782000000, 5, 4, 2, 2, 2, 8, 0, 0, 0, 1709282656000000, 1709282844000000, 1709282864000000, NULL, NULL, NULL, 'null', '{"after":4}', 0, NULL, NULL, NULL, NULL),
(37, 'ended', 'cancelled', 0, 4102444800000000, 1709282866000000, 1, 0, 10, 0, 0, NULL, 0, 0, 0, 1709282866000000, NULL, 1709282866000000, 'cancelled', NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(38, 'ended', 'cancelled', 0, 1709282867000000, 1709282891000000, 1, 1, 10, 0, 0, 8, 0, 0, 1, 1709282867000000, 1709282869000000, 1709282891000000, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(39, 'ended', 'abandoned', 0, 1709282892000000, 1709282922000000, 2, 1, 1, 0, 0, NULL, 0, 0, 0, 1709282892000000, 1709282892000000, 1709282922000000, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(40, 'again', 'pending', 0, 1709282996000000, 1709282996000000, 3, 2, 5, 2, 2, NULL, 0, 0, 0, 1709282923000000, 1709282976000000, NULL, NULL, NULL, '{"delay": 30.0, "linear": 5, "factor": 2.0, "max_delay": 86400.0, "jitter": 0.0, "max_attempts": 5}', '{"again":true}', NULL, 0, NULL, NULL, NULL, NULL),
(41, 'isolated', 'pending', 0, 1709282997000000, 1709282997000000, 2, 0, 10, 0, 0, NULL, 0, 1, 0, 1709282997000000, NULL, NULL, NULL, NULL, NULL, '0', NULL, 0, NULL, NULL, NULL, NULL),
(42, 'isolated', 'pending', 0, 1709282998000000, 1709282998000000, 2, 0, 10, 0, 0, NULL, 0, 1, 0, 1709282998000000, NULL, NULL, NULL, NULL, NULL, '1', NULL, 0, NULL, NULL, NULL, NULL),
(43, 'isolated', 'pending', 0, 1709282999000000, 1709282999000000, 2, 0, 10, 0, 0, NULL, 0, 1, 0, 1709282999000000, NULL, NULL, NULL, NULL, NULL, '2', NULL, 0, NULL, NULL, NULL, NULL),
(44, 'isolated', 'pending', 0, 1709283000000000, 1709283000000000, 2, 0, 10, 0, 0, NULL, 0, 1, 0, 1709283000000000, NULL, NULL, NULL, NULL, NULL, '3', NULL, 0, NULL, NULL, NULL, NULL),
(45, 'isolated', 'pending', 0, 1709283031000000, 1709283031000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283031000000, NULL, NULL, NULL, NULL, NULL, '4', NULL, 0, NULL, NULL, NULL, NULL),
(46, 'isolated', 'pending', 0, 1709283032000000, 1709283032000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283032000000, NULL, NULL, NULL, NULL, NULL, '5', NULL, 0, NULL, NULL, NULL, NULL),
(47, 'isolated', 'pending', 0, 1709283033000000, 1709283033000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283033000000, NULL, NULL, NULL, NULL, NULL, '6', NULL, 0, NULL, NULL, NULL, NULL),
(48, 'isolated', 'pending', 0, 1709283034000000, 1709283034000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283034000000, NULL, NULL, NULL, NULL, NULL, '7', NULL, 0, NULL, NULL, NULL, NULL),
(49, 'paused', 'pending', 0, 1709283035000000, 1709283035000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283035000000, NULL, NULL, NULL, NULL, NULL, '"waits"', NULL, 0, NULL, NULL, NULL, NULL),
(50, 'resumed', 'pending', 0, 1709283036000000, 1709283036000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283036000000, NULL, NULL, NULL, NULL, NULL, '"goes"', NULL, 0, NULL, NULL, NULL, NULL),
(51, 'commands', 'done', 0, 1709283037000000, 1709283037000000, 1, 1, 10, 0, 0, 16, 0, 0, 0, 1709283037000000, 1709283039000000, 1709283039000000, NULL, NULL, NULL, '{"argv":["sh","-c","echo $COLOUR; echo ::progress 3/10 files"],"cwd":"/","env":{"COLOUR":"red"}}', '{"exit_code": 0}', 1, '{"time": 60.0}', NULL, 250000, 31457280),
(52, 'commands', 'pending', 0, 1709283038000000, 1709283038000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283038000000, NULL, NULL, NULL, NULL, NULL, '{"argv":["sh","-c","echo $COLOUR; echo ::progress 3/10 files"],"cwd":"/","env":{"COLOUR":"red"}}', NULL, 1, '{"time": 60.0}', NULL, NULL, NULL),
(53, 'commands', 'pending', 1, 1709283060000000, 1709283060000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283060000000, NULL, NULL, NULL, NULL, NULL, '"plain"', NULL, 0, NULL, NULL, NULL, NULL),
(54, 'purged', 'abandoned', 0, 1709283061000000, 1709283061000000, 2, 1, 10, 0, 0, NULL, 0, 0, 0, 1709283061000000, 1709283063000000, 1709283083000000, 'purged', NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(55, 'lost', 'running', 0, 1709283114000000, 1709283114000000, 3, 2, 5, 0, 0, 19, 0, 0, 0, 1709283084000000, 1709283116000000, NULL, NULL, NULL, '{"delay": 100.0, "linear": 5, "factor": 2.0, "max_delay": 86400.0, "jitter": 0.0, "max_attempts": 5}', 'null', NULL, 0, NULL, NULL, NULL, NULL),
(56, 'lost', 'running', 0, 1709283137000000, 1709283137000000, 1, 1, 10, 0, 0, 19, 0, 0, 0, 1709283137000000, 1709283139000000, NULL, NULL, NULL, NULL, '{"lost":1}', NULL, 0, NULL, NULL, NULL, NULL),
(57, 'lost', 'running', 0, 1709283160000000, 1709283160000000, 1, 1, 1, 0, 0, 19, 0, 0, 0, 1709283160000000, 1709283162000000, NULL, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(58, 'lost', 'running', 0, 1709283183000000, 1709283183000000, 1, 1, 10, 0, 0, 19, 0, 0, 1, 1709283183000000, 1709283185000000, NULL, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(59, 'lost', 'reserved', 0, 1709283206000000, 1709283206000000, 1, 0, 10, 0, 0, 19, 0, 0, 0, 1709283206000000, NULL, NULL, 'reserved', NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(60, 'orphaned', 'running', 0, 1709283208000000, 1709283208000000, 1, 1, 10, 0, 0, 20, 0, 0, 0, 1709283208000000, 1709283210000000, NULL, NULL, NULL, NULL, '"no row"', NULL, 0, NULL, NULL, NULL, NULL),
(61, 'held', 'running', -1, 1709283231000000, 1709283231000000, 1, 1, 10, 0, 0, 21, 0, 0, 0, 1709283231000000, 1709283233000000, NULL, NULL, NULL, NULL, '"running"', NULL, 0, NULL, NULL, NULL, NULL),
(62, 'held', 'running', -1, 1709283232000000, 1709283232000000, 1, 1, 10, 0, 0, 21, 0, 0, 1, 1709283232000000, 1709283233000000, NULL, NULL, NULL, NULL, '"running and to be cancelled"', NULL, 0, NULL, NULL, NULL, NULL),
(63, 'held', 'running', -1, 1709283233000000, 1709283233000000, 1, 1, 10, 0, 0, 21, 0, 0, 0, 1709283233000000, 1709283233000000, NULL, NULL, NULL, NULL, '"suspended"', NULL, 0, NULL, 1, NULL, NULL),
(64, 'held', 'pending', 0, 1709283234000000, 1709283234000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 1709283234000000, NULL, NULL, NULL, 'no_such_function', NULL, '{"args":["c.png"],"kwargs":{}}', NULL, 0, NULL, NULL, NULL, NULL),
(65, 'held', 'reserved', -1, 1709283235000000, 1709283235000000, 1, 0, 10, 0, 0, 22, 0, 0, 0, 1709283235000000, NULL, NULL, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(66, 'held', 'running', -1, 1709283237000000, 1709283237000000, 1, 1, 10, 0, 0, 22, 0, 0, 0, 1709283237000000, 1709283239000000, NULL, NULL, NULL, NULL, 'null', NULL, 0, NULL, NULL, NULL, NULL),
(67, 'batch', 'reserved', 0, 1709283260000000, 1709283260000000, 1, 0, 10, 0, 0, 24, 1, 0, 0, 1709283260000000, NULL, NULL, NULL, NULL, NULL, '0', NULL, 0, NULL, NULL, NULL, NULL),
(68, 'batch', 'reserved', 0, 1709283261000000, 1709283261000000, 1, 0, 10, 0, 0, 24, 1, 0, 0, 1709283261000000, NULL, NULL, NULL, NULL, NULL, '1', NULL, 0, NULL, NULL, NULL, NULL),
(69, 'batch', 'reserved', 0, 1709283262000000, 1709283262000000, 1, 0, 10, 0, 0, 24, 1, 0, 0, 1709283262000000, NULL, NULL, NULL, NULL, NULL, '2', NULL, 0, NULL, NULL, NULL, NULL),
(70, 'batch', 'reserved', 0, 1709283263000000, 1709283263000000, 1, 0, 10, 0, 0, 24, 1, 0, 0, 1709283263000000, NULL, NULL, NULL, NULL, NULL, '3', NULL, 0, NULL, NULL, NULL, NULL),
(71, 'ahead', 'pending', 0, 4102444800000000, 4102444800000000, 0, 0, 10, 0, 0, NULL, 0, 0, 0, 4102444800000000, NULL, NULL, NULL, NULL, NULL, '"ahead"', NULL, 0, NULL, NULL, NULL, NULL);

INSERT INTO dbtaskqueue_large
("task", "name", "value") VALUES
(14, 'payload', '{"text":"payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; payload; "}'),
(27, 'checkpoint', '{"row":1200}'),
(27, 'step:fetch', '{"rows":3000,"source":"café.csv"}'),
(27, 'step:validate', '"valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid valid "'),
(30, 'result', '[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,43,44,45,46,47,48,49,50,51,52,53,54,55,56,57,58,59,60,61,62,63,64,65,66,67,68,69,70,71,72,73,74,75,76,77,78,79,80,81,82,83,84,85,86,87,88,89,90,91,92,93,94,95,96,97,98,99,100,101,102,103,104,105,106,107,108,109,110,111,112,113,114,115,116,117,118,119,120,121,122,123,124,125,126,127,128,129,130,131,132,133,134,135,136,137,138,139,140,141,142,143,144,145,146,147,148,149]');

INSERT INTO dbtaskqueue_note
("task", "token", "name", "value") VALUES
(27, 1, 'progress', '[1200, 3000, "rows", null]'),
(28, 1, 'output', 'reading the orders
412 orders read
'),
(28, 1, 'progress', '[412, 412, "orders", null]'),
(32, 4, 'output', 'reading the orders
412 orders read
'),
(32, 4, 'progress', '[412, 412, "orders", null]'),
(34, 1, 'output', 'connecting to the mail server
'),
(51, 1, 'output', 'red
::progress 3/10 files
'),
(51, 1, 'progress', '[3, 10, "files", 4.5]'),
(61, 1, 'output', 'copying the archive
'),
(61, 1, 'progress', '[3, 10, "archives", 4.5]'),
(61, 1, 'usage', '{"memory": 52428800, "cpu": 12.5, "processes": 1}'),
(62, 1, 'output', 'copying the archive
'),
(62, 1, 'progress', '[3, 10, "archives", 4.5]'),
(62, 1, 'usage', '{"memory": 52428800, "cpu": 12.5, "processes": 1}'),
(63, 1, 'output', 'copying the archive
'),
(63, 1, 'progress', '[3, 10, "archives", 4.5]'),
(63, 1, 'usage', '{"memory": 52428800, "cpu": 12.5, "processes": 1}');

INSERT INTO dbtaskqueue_attempt
("task", "token", "number", "worker", "started_at", "finished_at", "outcome", "error", "cpu", "memory") VALUES
(1, 1, 1, 1, 1709280003000000, 1709280023000000, 'failed', 'no answer to request 1', NULL, NULL),
(1, 2, 2, 1, 1709280085000000, 1709280105000000, 'failed', 'no answer to request 2', NULL, NULL),
(1, 3, 3, 1, 1709280227000000, 1709280247000000, 'failed', 'no answer to request 3', NULL, NULL),
(1, 4, 4, 1, 1709280429000000, 1709280449000000, 'failed', 'no answer to request 4', NULL, NULL),
(1, 5, 5, 1, 1709280691000000, 1709280711000000, 'failed', 'no answer to request 5', NULL, NULL),
(1, 6, 6, 1, 1709281013000000, 1709281033000000, 'failed', 'no answer to request 6', NULL, NULL),
(1, 7, 7, 1, 1709281635000000, 1709281655000000, 'failed', 'no answer to request 7', NULL, NULL),
(2, 1, 1, 1, 1709281658000000, 1709281678000000, 'failed', 'no answer to request 1', NULL, NULL),
(2, 2, 2, 1, 1709281780000000, 1709281800000000, 'failed', 'no answer to request 2', NULL, NULL),
(2, 3, 3, 1, 1709282002000000, 1709282022000000, 'failed', 'no answer to request 3', NULL, NULL),
(3, 2, 1, 1, 1709282031000000, 1709282051000000, 'released', NULL, NULL, NULL),
(4, 1, 1, 1, 1709282054000000, 1709282074000000, 'failed', 'no answer to request 1', NULL, NULL),
(4, 2, 2, 1, 1709282136000000, 1709282156000000, 'failed', 'no answer to request 2', NULL, NULL),
(4, 5, 3, 1, 1709282158000000, 1709282178000000, 'failed', 'no answer to request 1', NULL, NULL),
(5, 1, 1, 1, 1709282181000000, 1709282201000000, 'failed', 'no answer to request 1', NULL, NULL),
(6, 1, 1, 2, 1709282202000000, 1709282232000000, 'lost', 'the worker 2 (process 4002 on worker1.example) was lost while it ran this attempt', NULL, NULL),
(27, 1, 1, 3, 1709282254000000, 1709282254000000, 'failed', 'Traceback (most recent call last):
  File "/srv/app/app.py", line 44, in import_rows
    raise OSError("the network is unreachable")
OSError: the network is unreachable
', NULL, NULL),
(32, 1, 1, 8, 1709282365000000, 1709282385000000, 'failed', 'no answer to request 1', NULL, NULL),
(32, 2, 2, 8, 1709282447000000, 1709282467000000, 'failed', 'no answer to request 2', NULL, NULL),
(34, 1, 1, 11, 1709282612000000, 1709282612000000, 'abandoned', 'Traceback (most recent call last):
  File "/srv/app/app.py", line 29, in fail
    raise ValueError(f"no address in {payload!r}")
ValueError: no address in {''to'': ''nobody''}
', 250000, 31457280),
(35, 1, 1, 8, 1709282635000000, 1709282655000000, 'abandoned', 'no such account', NULL, NULL),
(36, 1, 1, 8, 1709282658000000, 1709282678000000, 'failed', 'no answer to request 1', NULL, NULL),
(36, 2, 2, 8, 1709282740000000, 1709282760000000, 'abandoned', 'no answer to request 2', NULL, NULL),
(36, 4, 3, 8, 1709282762000000, 1709282782000000, 'failed', 'no answer to request 1', NULL, NULL),
(38, 1, 1, 8, 1709282869000000, 1709282891000000, 'cancelled', 'stopped on request', NULL, NULL),
(39, 1, 1, 12, 1709282892000000, 1709282922000000, 'lost', 'the worker 12 (process 4012 on worker1.example) was lost while it ran this attempt', NULL, NULL),
(40, 1, 1, 13, 1709282925000000, 1709282945000000, 'failed', 'no answer to request 1', NULL, NULL),
(40, 2, 2, 14, 1709282976000000, 1709282976000000, 'done', NULL, NULL, NULL),
(54, 1, 1, 17, 1709283063000000, 1709283083000000, 'abandoned', 'purged while it ran', NULL, NULL),
(55, 1, 1, 18, 1709283084000000, 1709283114000000, 'lost', 'the worker 18 (process 4018 on worker1.example) was lost while it ran this attempt', NULL, NULL);

UPDATE dbtaskqueue_pruned SET highest = 72;
