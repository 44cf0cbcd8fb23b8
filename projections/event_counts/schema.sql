-- Grain: one combination of hour (UTC), event type, `to_user`, reason, campaign, coupon type and channel. `to_user`:
-- true for an `issued` event that names a user. `channel`: the event's channel; if it has none, the one through which
-- the coupon was claimed; otherwise the one through which it was issued. `key_hash`: a hash of all other columns except
-- `events`, for look-ups. `events`: the number of events.
CREATE TABLE event_counts (
    key_hash BIGINT NOT NULL,
    hour TIMESTAMP NOT NULL,
    type VARCHAR NOT NULL,
    to_user BOOLEAN NOT NULL,
    reason VARCHAR,
    campaign_id VARCHAR,
    coupon_type VARCHAR,
    channel VARCHAR,
    events BIGINT NOT NULL
);
