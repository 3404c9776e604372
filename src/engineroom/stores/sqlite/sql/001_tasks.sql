-- The task database, version 1.
--
-- A row is a task as it was submitted and, once it ended, its outcome. What can be derived (headers, most of the
-- reply) is not stored. `kind` is NULL for records that were added as documents; `document` (msgpack) holds what
-- of a record has no column, and takes precedence over what is derived.
--
-- Times are seconds since the epoch, as the messages have them. Large columns come last, so that reading the
-- others does not touch them.

CREATE TABLE tasks (
    seq            INTEGER PRIMARY KEY,
    msg_id         TEXT NOT NULL UNIQUE,
    kind           TEXT,
    state          TEXT,
    label          TEXT,
    submitted      REAL,
    started        REAL,
    completed      REAL,
    received       REAL,
    client_uuid    TEXT,
    engine_uuid    TEXT,
    engine_id      INTEGER,
    queue          TEXT,
    target         INTEGER,
    function       BLOB,
    resubmitted    TEXT,
    attempt        INTEGER,
    ename          TEXT,
    options        BLOB,
    outcome        BLOB,
    document       BLOB,
    stdout         TEXT,
    stderr         TEXT,
    -- NULL where the list of buffers is in `frames` alone
    payload        BLOB,
    frames         BLOB,
    result_payload BLOB,
    result_frames  BLOB
);

CREATE INDEX tasks_by_submission ON tasks (submitted, msg_id);
CREATE INDEX tasks_by_engine ON tasks (engine_uuid);
CREATE INDEX tasks_pending ON tasks (submitted) WHERE completed IS NULL;
CREATE INDEX tasks_with_document ON tasks (seq) WHERE document IS NOT NULL;

CREATE TABLE functions (
    digest  BLOB PRIMARY KEY,
    payload BLOB NOT NULL
) WITHOUT ROWID;
