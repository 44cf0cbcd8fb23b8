-- Grain: one hour (UTC), type and reason of coupon events that happened to coupons of one campaign and type on one
-- channel: the event's own, else where the coupon was claimed, else issued. `to_user`: issues that name their user.
-- `key_hash`: of all these together, what a row is found by.
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
