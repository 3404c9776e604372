-- Version 3: memory of attempts, what makes calls equal, names and sources of functions, where clients run.
--
-- Large columns come last, so the table is made anew.

CREATE TABLE tasks_3 (
    seq              INTEGER PRIMARY KEY,
    msg_id           TEXT NOT NULL UNIQUE,
    kind             TEXT,
    state            TEXT,
    label            TEXT,
    submitted        REAL,
    started          REAL,
    completed        REAL,
    received         REAL,
    client_uuid      TEXT,
    engine_uuid      TEXT,
    engine_id        INTEGER,
    queue            TEXT,
    target           INTEGER,
    function         BLOB,
    resubmitted      TEXT,
    code_digest      TEXT,
    arguments_digest TEXT,
    cached_from      TEXT,
    attempt          INTEGER,
    peak_memory      INTEGER,
    ename            TEXT,
    options          BLOB,
    outcome          BLOB,
    document         BLOB,
    stdout           TEXT,
    stderr           TEXT,
    payload          BLOB,
    frames           BLOB,
    result_payload   BLOB,
    result_frames    BLOB,
    duration         REAL GENERATED ALWAYS AS (completed - started) VIRTUAL
);

INSERT INTO tasks_3 (
    seq, msg_id, kind, state, label, submitted, started, completed, received, client_uuid, engine_uuid, engine_id, queue,
    target, function, resubmitted, attempt, ename, options, outcome, document, stdout, stderr, payload, frames,
    result_payload, result_frames
) SELECT
    seq, msg_id, kind, state, label, submitted, started, completed, received, client_uuid, engine_uuid, engine_id, queue,
    target, function, resubmitted, attempt, ename, options, outcome, document, stdout, stderr, payload, frames,
    result_payload, result_frames
FROM tasks;

DROP TABLE tasks;
ALTER TABLE tasks_3 RENAME TO tasks;

CREATE INDEX tasks_by_submission ON tasks (submitted, msg_id);
CREATE INDEX tasks_by_engine ON tasks (engine_uuid, submitted);
CREATE INDEX tasks_by_engine_id ON tasks (engine_id, submitted);
CREATE INDEX tasks_by_state ON tasks (state, submitted);
CREATE INDEX tasks_by_label ON tasks (label, submitted) WHERE label IS NOT NULL;
CREATE INDEX tasks_pending ON tasks (submitted, msg_id) WHERE completed IS NULL;
CREATE INDEX tasks_with_document ON tasks (seq) WHERE document IS NOT NULL;
-- Hits are not answered from hits, so those need not be in it.
CREATE INDEX tasks_by_arguments ON tasks (arguments_digest) WHERE arguments_digest IS NOT NULL AND cached_from IS NULL;

CREATE TABLE functions_3 (
    digest  BLOB PRIMARY KEY,
    name    TEXT,
    source  TEXT NOT NULL DEFAULT '',
    payload BLOB NOT NULL
) WITHOUT ROWID;
INSERT INTO functions_3 (digest, payload) SELECT digest, payload FROM functions;
DROP TABLE functions;
ALTER TABLE functions_3 RENAME TO functions;

-- A client stays in its environment, so this is not said in every row.
CREATE TABLE environments (
    digest  TEXT PRIMARY KEY,
    content BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE clients (
    client_uuid TEXT PRIMARY KEY,
    environment TEXT NOT NULL
) WITHOUT ROWID;
