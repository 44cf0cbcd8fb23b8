-- What the metrics are made from, where it would take too long to be brought together for each question: counts.py, sales.py.

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

-- Grain: one coupon in state `used`, with what its order says of itself; null where nobody told of that. `buyer`,
-- `channel`, `currency`: of the order. `lines`: where these alone can tell what the goods cost.
CREATE TABLE coupon_sales (
    order_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    key_hash BIGINT NOT NULL,
    coupon_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    used_at TIMESTAMP NOT NULL,
    acquired_at TIMESTAMP,
    discount_minor BIGINT NOT NULL,
    campaign_id VARCHAR,
    coupon_type VARCHAR,
    coupon_channel VARCHAR,
    owner VARCHAR USING COMPRESSION uncompressed,
    coupon_currency VARCHAR,
    buyer VARCHAR USING COMPRESSION uncompressed,
    channel VARCHAR,
    store VARCHAR,
    region VARCHAR,
    currency VARCHAR,
    gross_minor BIGINT,
    net_minor BIGINT,
    refunded_minor HUGEINT,
    cost_of_goods_minor BIGINT,
    lines STRUCT(sku VARCHAR, category VARCHAR, quantity BIGINT, net_minor BIGINT, discount_minor BIGINT,
                 cost_minor BIGINT)[],
    paid_at TIMESTAMP,
    cancelled_at TIMESTAMP
);
