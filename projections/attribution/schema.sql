-- Persons, and the touches that led to orders. `person_hash` is signature.stable_hash of the person. `persons` is exact
-- at every commit. For each person, either all paths are up to date, or one of its ids is in `stale_users`.

-- Grain: one id that is linked to others by `linked` events, transitively. Any other id is a person of its own.
-- `person`: the id after which the person is named (persons.py).
CREATE TABLE persons (
    user_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    person VARCHAR NOT NULL USING COMPRESSION uncompressed
);

-- Grain: one order that stands (paid, neither cancelled nor fully refunded), with the touches of its person in the
-- look-back window before it; or a path without an order: touches that led to no order, between the same two orders.
-- `ended_at`: the payment, or the last touch. `previous_at`: the payment of the person's previous order. `touches`: the
-- number of touches; the lists have the latest of them, earliest first. `sources`: see touch_sources. `sales_minor`:
-- the amount paid minus refunds.
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

-- Grain: one combination of kind, channel and campaign of touches. `source`: a hash of the three. Rows are kept even if
-- no touch has the combination any more.
CREATE TABLE touch_sources (
    source BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    channel VARCHAR,
    campaign_id VARCHAR
);

-- Grain: one id and one batch that changed its touches, orders or links since the paths were updated.
CREATE TABLE stale_users (
    user_id VARCHAR NOT NULL USING COMPRESSION uncompressed
);
