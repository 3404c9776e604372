-- Version 7: the largest buffers are files in a folder beside the database.

-- The file's name, and the CRC-32 of its content; NULL: the content is in `parts`.
ALTER TABLE blobs ADD COLUMN file TEXT;
ALTER TABLE blobs ADD COLUMN sum INTEGER;
CREATE INDEX blobs_by_file ON blobs (file) WHERE file IS NOT NULL;

-- Files that no record uses any more. They are removed after the commit, and then taken from this list.
CREATE TABLE dropped_files (
    file TEXT PRIMARY KEY
) WITHOUT ROWID;
CREATE TRIGGER forget_files AFTER DELETE ON blobs WHEN OLD.file IS NOT NULL
BEGIN
    INSERT OR IGNORE INTO dropped_files VALUES (OLD.file);
END;
