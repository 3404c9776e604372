-- Version 5: when tasks ended has an index. Those of engines leave out what never ran, which pays for it.

CREATE INDEX tasks_by_end ON tasks (completed);

DROP INDEX tasks_by_engine;
CREATE INDEX tasks_by_engine ON tasks (engine_uuid, submitted) WHERE engine_uuid IS NOT NULL;
DROP INDEX tasks_by_engine_id;
CREATE INDEX tasks_by_engine_id ON tasks (engine_id, submitted) WHERE engine_id IS NOT NULL;
