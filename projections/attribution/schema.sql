-- Persons, and the touches that led to orders. `person_hash`: signature.stable_hash of `person`. `persons` is up to
-- date at every commit. Of each person, either all paths are up to date, or one of its ids is in `stale_users`.

-- Grain: one id that `linked` events join with others. An id that is not in this table is a person of its own.
-- `person`: the id after which the person is named (persons.py).
CREATE TABLE persons (
    user_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    person VARCHAR NOT NULL USING COMPRESSION uncompressed
);

-- Grain: one path. The path of an order that stands (paid, neither cancelled nor fully refunded) has the touches of its
-- person in the look-back window before the payment. A path without an order has touches that led to no order, between
-- two successive orders of a person, or before the first or after the last one.
-- `ended_at`: the instant of the payment; without an order, of the last touch. `previous_at`: the payment of the
-- person's previous order. `touches`: the number of touches. `sources`, `touched_at`: about the latest 100 of them at
-- most, earliest first; for `sources`, see touch_sources. `sales_minor`: the amount paid minus refunds.
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

-- Grain: one combination of kind, channel and campaign that a touch has or had. `source`: a hash of the three. A row
-- stays even if no touch has the combination any more.
CREATE TABLE touch_sources (
    source BIGINT NOT NULL,
    kind VARCHAR NOT NULL,
    channel VARCHAR,
    campaign_id VARCHAR
);

-- Grain: one id and one batch that changed its touches, orders or links, if the paths of its person have not been
-- updated since.
CREATE TABLE stale_users (
    user_id VARCHAR NOT NULL USING COMPRESSION uncompressed
);
