-- Grain: one episode: a stretch of time in which the condition of a rule held for one key. `episode_id`: a hash of the
-- rule's name, the key, and the position and instant at which it was opened; `episode_hash`: a hash of it, for look-ups.
-- `key`: the key's fields and values, as JSON. All instants but `opened_recorded_at` are of the clock of the rule's topic.
-- `fired_at`: null while the condition has not held for long enough. `closed_at`: null while the episode goes on.
-- `value`: the value when it fired; `peak`: the highest or, where less is worse, the lowest. `threshold`: what it was
-- compared with. `times`: how often the condition was found true. `details`: further values, as JSON.
CREATE TABLE alert_episodes (
    episode_hash BIGINT NOT NULL,
    episode_id VARCHAR NOT NULL,
    rule VARCHAR NOT NULL,
    rule_version VARCHAR NOT NULL,
    key VARCHAR NOT NULL,
    opened_at TIMESTAMP NOT NULL,
    fired_at TIMESTAMP,
    last_true_at TIMESTAMP NOT NULL,
    closed_at TIMESTAMP,
    opened_recorded_at TIMESTAMP NOT NULL,
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    value DOUBLE NOT NULL,
    peak DOUBLE NOT NULL,
    threshold DOUBLE NOT NULL,
    times BIGINT NOT NULL,
    details VARCHAR
);

-- Grain: one topic. All its events that were recorded at or before `released_until` have been evaluated. `clock`: the
-- topic's clock then.
CREATE TABLE alert_progress (
    topic VARCHAR NOT NULL,
    released_until TIMESTAMP NOT NULL,
    clock TIMESTAMP NOT NULL
);

-- Grain: one rule version in force. It judges the events that were recorded after `since`, and not after `until` (null:
-- it is still in force). `rule`: the rule as JSON.
CREATE TABLE alert_rules (
    name VARCHAR NOT NULL,
    version VARCHAR NOT NULL,
    rule VARCHAR NOT NULL,
    since TIMESTAMP NOT NULL,
    until TIMESTAMP
);

-- Grain: one closed bucket of time of one series of a rule: the sums of a slice's events. `slice`: the values of the
-- slice, as JSON. `of`: the sum of the numerator, `per`: of the denominator. Buckets without events are not stored.
CREATE TABLE alert_series (
    rule VARCHAR NOT NULL,
    rule_version VARCHAR NOT NULL,
    slice VARCHAR NOT NULL,
    bucket BIGINT NOT NULL,
    of DOUBLE NOT NULL,
    per DOUBLE NOT NULL
);

-- The same of the buckets that are not closed. They are few, and written anew at each release.
CREATE TABLE alert_open_series (
    rule VARCHAR NOT NULL,
    rule_version VARCHAR NOT NULL,
    slice VARCHAR NOT NULL,
    bucket BIGINT NOT NULL,
    of DOUBLE NOT NULL,
    per DOUBLE NOT NULL
);

-- Grain: one rule version with series. Its buckets before `next_bucket` are closed.
CREATE TABLE alert_buckets (
    rule VARCHAR NOT NULL,
    rule_version VARCHAR NOT NULL,
    next_bucket BIGINT NOT NULL
);

-- Grain: one event of `coupon.alerts`, at its first delivery that was read. No rebuild empties this table: a new database
-- reads the topic from its start. `event_hash`: a hash of `event_id`, for look-ups. `event`: the event as JSON.
CREATE TABLE alert_events (
    event_hash BIGINT NOT NULL,
    event_id VARCHAR NOT NULL,
    type VARCHAR NOT NULL,
    fingerprint VARCHAR,
    alert_id VARCHAR,
    silence_id VARCHAR,
    rule VARCHAR,
    occurred_at TIMESTAMP NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    event VARCHAR NOT NULL
);

-- Grain: one partition of `coupon.alerts`. Everything before `next_offset` is in `alert_events`.
CREATE TABLE alert_positions (
    log_partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL
);
