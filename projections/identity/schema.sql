-- The identity of the log that the database was filled from, and counts of suspicious events. These tables are
-- book-keeping: no digest includes them.

-- Grain: one topic that was read. `id`: the id that the topic had in the log when it was last read.
CREATE TABLE log_topics (
    topic VARCHAR NOT NULL PRIMARY KEY,
    id VARCHAR NOT NULL
);

-- Grain: the database. `records`: a JSON array with an array for each partition, about its last consumed record: topic,
-- partition, offset, recorded_at (µs since the epoch), and the SHA-256 of key and value as stored in the log
-- (hexadecimal). It is a single value since it is written with every batch, and one row per partition would take five
-- times as long. A partition that has only been read by a bulk load is missing; see `last_folded.sql`.
CREATE TABLE last_records (records VARCHAR NOT NULL);

-- Grain: one topic. Counts of suspicious events (consumers/intake.py). `other_keys`: the record's key is not the
-- event's key; `skewed`: `occurred_at` and `recorded_at` are far apart; `in_1970`: skewed events that happened in 1970.
CREATE TABLE oddities (
    topic VARCHAR NOT NULL PRIMARY KEY,
    other_keys BIGINT NOT NULL,
    skewed BIGINT NOT NULL,
    in_1970 BIGINT NOT NULL
);
