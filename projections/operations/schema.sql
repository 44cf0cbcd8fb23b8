-- Grain: one operation in `coupon.operations`, at its first delivery that was read. `event_hash`: a hash of `event_id`,
-- for look-ups. `details`: as JSON.
CREATE TABLE operation_events (
    event_hash BIGINT NOT NULL,
    event_id VARCHAR NOT NULL,
    action VARCHAR NOT NULL,
    operator VARCHAR NOT NULL,
    subject VARCHAR,
    reason VARCHAR NOT NULL,
    details VARCHAR,
    occurred_at TIMESTAMP NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL
);

-- Grain: one partition of `coupon.operations`. Everything before `next_offset` is in `operation_events`.
CREATE TABLE operation_positions (
    log_partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL
);
