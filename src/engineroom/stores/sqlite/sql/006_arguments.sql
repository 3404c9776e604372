-- Version 6: the arguments of each call as a short text.

ALTER TABLE tasks ADD COLUMN arguments TEXT;
