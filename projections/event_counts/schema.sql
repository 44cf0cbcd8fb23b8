-- Grain: one hour (UTC), event type, reason, campaign, coupon type and channel. `channel`: of the event; otherwise
-- where the coupon was claimed; otherwise where it was issued. `to_user`: issues that name a user. `key_hash`: of all
-- these columns, for look-ups.
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
