-- Grain: one coupon in state `used`, with the values of its order, which are null if the order has no events. `buyer`:
-- the order's user. `channel`, `currency`: those of the order. `coupon_channel`, `coupon_currency`: those of the
-- coupon. `lines`: null if the order has its own figure for the cost of goods.
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
