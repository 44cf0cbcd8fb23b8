-- The identity of the log that the database was filled from. Book-keeping: not part of any digest.

-- Grain: one topic that was read. `id`: the topic's id in the log, when it was last read.
CREATE TABLE log_topics (
    topic VARCHAR NOT NULL PRIMARY KEY,
    id VARCHAR NOT NULL
);

-- Grain: the database. `records`: JSON with the last consumed record of each partition: topic, partition, offset,
-- recorded_at (µs since the epoch), and SHA-256 of key and value as stored in the log (hexadecimal). It is a single
-- value, since it is written with every batch, and rows would take five times as long. Partitions that were filled by a
-- bulk load are not in it; see `last_folded.sql`.
CREATE TABLE last_records (records VARCHAR NOT NULL);

-- Grain: one topic. Counts of suspicious events (consumers/intake.py): with a record key that is not the event's key
-- (`other_keys`), with a large difference between `occurred_at` and `recorded_at` (`skewed`), and skewed ones in 1970.
CREATE TABLE oddities (
    topic VARCHAR NOT NULL PRIMARY KEY,
    other_keys BIGINT NOT NULL,
    skewed BIGINT NOT NULL,
    in_1970 BIGINT NOT NULL
);
