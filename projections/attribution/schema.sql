-- Who is who, and which contacts led to an order. `person_hash` is signature.stable_hash of the person. `persons` is
-- exact at every commit. For each person, either all paths are up to date or one of its ids is in `stale_users`.

-- Grain: one id of a person who has several: joined by `linked` events, transitively. An id that is not here is a
-- person of its own. `person`: the one that the others are aliases of (persons.py).
CREATE TABLE persons (
    user_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    person VARCHAR NOT NULL USING COMPRESSION uncompressed
);

-- Grain: one paid order that stands (neither cancelled nor fully refunded), with the touches of its person in the
-- look-back window before it; or, without an order, touches that led to nothing, between the same two orders.
-- `ended_at`: the payment, or the last touch. `previous_at`: the payment of the person's order before this one.
-- `touches`: how many there were; the lists have the latest of them, the earliest first. `sources`: see touch_sources.
-- `sales_minor`: paid, less what was refunded.
CREATE TABLE paths (
    person_hash BIGINT NOT NULL,
    person VARCHAR NOT NULL USING COMPRESSION uncompressed,
    order_id VARCHAR USING COMPRESSION uncompressed,
    ended_at TIMESTAMP NOT NULL,
    previous_at TIMESTAMP,
    currency VARCHAR,
    sales_minor BIGINT,
    cost_of_goods_minor BIGINT,
    names_coupons BOOLEAN,
    touches BIGINT NOT NULL,
    sources BIGINT[] NOT NULL,
    touched_at TIMESTAMP[] NOT NULL
);

-- Grain: one kind of touch, channel and campaign that some touch had; `source` is a hash of the three. Kept when the
-- last touch of it is gone.
CREATE TABLE touch_sources (
    source BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    channel VARCHAR,
    campaign_id VARCHAR
);

-- Grain: one id and a batch that changed something of it since the paths were brought up to date.
CREATE TABLE stale_users (
    user_id VARCHAR NOT NULL USING COMPRESSION uncompressed
);
