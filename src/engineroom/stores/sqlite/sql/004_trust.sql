-- Version 4: checksums, shared buffers, pins.

-- CRC-32 of what was submitted, and of its outcome; NULL in rows of earlier versions.
ALTER TABLE tasks ADD COLUMN request_sum INTEGER;
ALTER TABLE tasks ADD COLUMN outcome_sum INTEGER;

-- A large buffer is stored once, by its content, in parts. `frames` and `result_frames` name it by its number.
CREATE TABLE blobs (
    blob   INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE,
    size   INTEGER NOT NULL
);
CREATE TABLE parts (
    part INTEGER PRIMARY KEY,
    blob INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE INDEX parts_by_blob ON parts (blob, part);
CREATE TABLE uses (
    msg_id TEXT NOT NULL,
    blob   INTEGER NOT NULL,
    result INTEGER NOT NULL,
    PRIMARY KEY (msg_id, blob, result)
) WITHOUT ROWID;
CREATE INDEX uses_by_blob ON uses (blob);

-- Records that retention does not touch.
CREATE TABLE pins (
    msg_id TEXT PRIMARY KEY
) WITHOUT ROWID;

CREATE TRIGGER forget_uses AFTER DELETE ON tasks WHEN EXISTS (SELECT 1 FROM uses WHERE msg_id = OLD.msg_id)
BEGIN
    DELETE FROM uses WHERE msg_id = OLD.msg_id;
END;
CREATE TRIGGER forget_pins AFTER DELETE ON tasks WHEN EXISTS (SELECT 1 FROM pins WHERE msg_id = OLD.msg_id)
BEGIN
    DELETE FROM pins WHERE msg_id = OLD.msg_id;
END;
CREATE TRIGGER forget_blobs AFTER DELETE ON uses WHEN NOT EXISTS (SELECT 1 FROM uses WHERE blob = OLD.blob)
BEGIN
    DELETE FROM parts WHERE blob = OLD.blob;
    DELETE FROM blobs WHERE blob = OLD.blob;
END;
