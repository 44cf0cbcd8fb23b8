-- Which log the database was filled from. Bookkeeping: no part of any digest, carried along with the file.

-- Grain: one topic that was read, with the id that the log gave it when it was last read.
CREATE TABLE log_topics (
    topic VARCHAR NOT NULL PRIMARY KEY,
    id VARCHAR NOT NULL
);

-- Grain: the database. `records`: JSON, for each partition the last record that a consumer took from it: topic, partition,
-- offset, recorded_at (µs since the epoch), SHA-256 of key and value as they stand in the log (hexadecimal). One value,
-- since it is written with every batch: rows of a table would take five times as long. Partitions that were folded as a
-- whole history are not in it; `last_folded.sql` answers for them.
CREATE TABLE last_records (records VARCHAR NOT NULL);

-- Grain: one topic: how many of its events were odd when they were consumed (consumers/intake.py): with a record key other
-- than their id; that happened far from when they were recorded; of these in 1970.
CREATE TABLE oddities (
    topic VARCHAR NOT NULL PRIMARY KEY,
    other_keys BIGINT NOT NULL,
    skewed BIGINT NOT NULL,
    in_1970 BIGINT NOT NULL
);
