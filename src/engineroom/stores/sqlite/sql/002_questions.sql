-- Version 2: what is asked of most has an index that also gives the order of answers; where engines run.

ALTER TABLE tasks ADD COLUMN duration REAL GENERATED ALWAYS AS (completed - started) VIRTUAL;

DROP INDEX tasks_by_engine;
CREATE INDEX tasks_by_engine ON tasks (engine_uuid, submitted);
CREATE INDEX tasks_by_engine_id ON tasks (engine_id, submitted);
CREATE INDEX tasks_by_state ON tasks (state, submitted);
CREATE INDEX tasks_by_label ON tasks (label, submitted) WHERE label IS NOT NULL;

DROP INDEX tasks_pending;
CREATE INDEX tasks_pending ON tasks (submitted, msg_id) WHERE completed IS NULL;

-- An engine stays on its host, so this is not said in every row.
CREATE TABLE engines (
    engine_uuid TEXT PRIMARY KEY,
    host        TEXT NOT NULL
) WITHOUT ROWID;
