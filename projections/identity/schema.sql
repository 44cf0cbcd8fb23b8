-- Which log the database was filled from. Bookkeeping: no part of any digest, carried along with the file.

-- Grain: one topic that was read, with the id that the log gave it when it was last read.
CREATE TABLE log_topics (
    topic VARCHAR NOT NULL PRIMARY KEY,
    id VARCHAR NOT NULL
);

-- Grain: one partition: the last record that a consumer took from it. `digest`: SHA-256 of its key and value as they stand
-- in the log. Partitions that were folded as a whole history have no row here; `last_folded.sql` answers for them.
CREATE TABLE last_records (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    recorded_at BIGINT NOT NULL, -- µs since the epoch
    digest BLOB NOT NULL,
    PRIMARY KEY (topic, log_partition)
);

-- Grain: one topic: how many of its events were odd when they were consumed (consumers/intake.py): with a record key other
-- than their id; that happened far from when they were recorded; of these in 1970.
CREATE TABLE oddities (
    topic VARCHAR NOT NULL PRIMARY KEY,
    other_keys BIGINT NOT NULL,
    skewed BIGINT NOT NULL,
    in_1970 BIGINT NOT NULL
);
