-- What the service keeps. INTEGER has 64 bits; where an engine calls that otherwise, it is replaced (dialect.rs).

-- One row, changed by each transaction that writes: whoever has changed it has every other writer wait until it has ended.
CREATE TABLE service (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    maker TEXT NOT NULL,
    version INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    told INTEGER NOT NULL
);
INSERT INTO service (one, maker, version, generation, told) VALUES (1, 'z-orchestrator', 0, 0, 0);

-- The record is the truth; the other columns repeat what is searched for, and what must be unique.
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    server TEXT NOT NULL,
    target TEXT NOT NULL,
    fabric TEXT NOT NULL,
    image TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    record TEXT NOT NULL
);
CREATE UNIQUE INDEX one_active_run_per_server ON runs (server) WHERE state IN ('launching', 'running', 'lost');
CREATE UNIQUE INDEX one_active_run_per_target ON runs (target) WHERE state IN ('launching', 'running', 'lost');
CREATE INDEX runs_by_state ON runs (state, seq);
CREATE INDEX runs_by_server ON runs (server, seq);
CREATE INDEX runs_by_fabric ON runs (fabric, seq);
CREATE INDEX runs_by_image ON runs (image, seq);

CREATE TABLE told (
    seq INTEGER PRIMARY KEY,
    run TEXT NOT NULL REFERENCES runs (run),
    time TEXT NOT NULL,
    what TEXT NOT NULL
);
CREATE INDEX told_by_run ON told (run, seq);
