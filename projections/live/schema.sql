-- The tables of the live projection, except the journals, which follow the Avro schemas (journal.py).
-- `coupon_state` is an ENUM of the states in lifecycle.toml. Instants are in UTC. `key_hash` is signature.stable_hash
-- of the key; joins use it together with the key. Ids are stored uncompressed, as in the journals. Each row ends with
-- book-keeping columns: `last_type` and `last_event_at` are of the canonically last event folded; `ids_low` and
-- `ids_high` are the id filter (signature.py); no event of the key was recorded before `first_recorded_at`.

-- Grain: one coupon. For the values, see docs/events.md. `acquired_…`: of the first event that set an owner.
-- `used_event_id`: of the event at `used_at`. `extended_at`: of the last legal `extended` event, whose `valid_until`
-- then applies; null if `valid_until` is from the first event that carries one.
CREATE TABLE coupons (
    key_hash BIGINT NOT NULL,
    coupon_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    state coupon_state NOT NULL,
    resting coupon_state NOT NULL,
    campaign_id VARCHAR,
    coupon_type VARCHAR,
    face_value_minor BIGINT,
    percent_off_bp BIGINT,
    min_spend_minor BIGINT,
    currency VARCHAR,
    valid_from TIMESTAMP,
    valid_until TIMESTAMP,
    owner VARCHAR USING COMPRESSION uncompressed,
    order_id VARCHAR USING COMPRESSION uncompressed,
    discount_minor BIGINT,
    acquired_at TIMESTAMP,
    acquired_event_id VARCHAR USING COMPRESSION uncompressed,
    acquired_by VARCHAR USING COMPRESSION uncompressed,
    used_event_id VARCHAR USING COMPRESSION uncompressed,
    issue_channel VARCHAR,
    claim_channel VARCHAR,
    reason VARCHAR,
    created_at TIMESTAMP,
    issued_at TIMESTAMP,
    claimed_at TIMESTAMP,
    reserved_at TIMESTAMP,
    used_at TIMESTAMP,
    ended_at TIMESTAMP,
    extended_at TIMESTAMP,
    last_event_at TIMESTAMP NOT NULL,
    events INTEGER NOT NULL,
    violations INTEGER NOT NULL,
    last_type UTINYINT NOT NULL,
    ids_low BIGINT NOT NULL,
    ids_high BIGINT NOT NULL,
    first_recorded_at TIMESTAMP NOT NULL
);

-- Grain: one order. Each value is from the canonically last event that carries it. `placed_at`, `paid_at`: of the first
-- event of that type. `cancelled_at`: of the first cancellation that no payment follows, since a later payment makes
-- the order stand again. `repaid_at`: of the first payment after a cancellation. `refunded_minor`: the sum of all
-- refunds, null if there are none.
CREATE TABLE orders (
    key_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    user_id VARCHAR USING COMPRESSION uncompressed,
    channel VARCHAR,
    store VARCHAR,
    region VARCHAR,
    currency VARCHAR,
    gross_minor BIGINT,
    net_minor BIGINT,
    discounts STRUCT(kind VARCHAR, amount_minor BIGINT, funder VARCHAR)[],
    cost_of_goods_minor BIGINT,
    reason VARCHAR,
    coupon_ids VARCHAR[],
    lines STRUCT(sku VARCHAR, category VARCHAR, quantity BIGINT, net_minor BIGINT, discount_minor BIGINT,
                 cost_minor BIGINT)[],
    placed_at TIMESTAMP,
    paid_at TIMESTAMP,
    cancelled_at TIMESTAMP,
    repaid_at TIMESTAMP,
    refunded_minor HUGEINT,
    last_event_at TIMESTAMP NOT NULL,
    events INTEGER NOT NULL,
    violations INTEGER NOT NULL,
    last_type UTINYINT NOT NULL,
    ids_low BIGINT NOT NULL,
    ids_high BIGINT NOT NULL,
    first_recorded_at TIMESTAMP NOT NULL
);

-- Grain: one campaign. `status`: the type of the canonically last drafted, published, unpublished or ended.
-- `rule_version`: the event_id of the canonically last drafted, published, unpublished or amended.
CREATE TABLE campaigns (
    key_hash BIGINT NOT NULL,
    campaign_id VARCHAR NOT NULL,
    name VARCHAR,
    status VARCHAR,
    rule_version VARCHAR,
    rule_id VARCHAR,
    mechanic VARCHAR,
    visibility VARCHAR,
    quantity BIGINT,
    per_user_limit BIGINT,
    claim_from TIMESTAMP,
    claim_until TIMESTAMP,
    coupon_type VARCHAR,
    face_value_minor BIGINT,
    percent_off_bp BIGINT,
    min_spend_minor BIGINT,
    currency VARCHAR,
    applies_to VARCHAR,
    exclusion_group VARCHAR,
    priority BIGINT,
    platform_or_store VARCHAR,
    budget_minor BIGINT,
    channel VARCHAR,
    funded_by VARCHAR,
    last_event_at TIMESTAMP NOT NULL,
    events INTEGER NOT NULL,
    violations INTEGER NOT NULL,
    last_type UTINYINT NOT NULL,
    ids_low BIGINT NOT NULL,
    ids_high BIGINT NOT NULL,
    first_recorded_at TIMESTAMP NOT NULL
);

-- Grain: one user. `aliases`: every id linked to it, sorted.
CREATE TABLE users (
    key_hash BIGINT NOT NULL,
    user_id VARCHAR NOT NULL,
    attributes VARCHAR,
    aliases VARCHAR[],
    touches BIGINT,
    last_event_at TIMESTAMP NOT NULL,
    events INTEGER NOT NULL,
    violations INTEGER NOT NULL,
    last_type UTINYINT NOT NULL,
    ids_low BIGINT NOT NULL,
    ids_high BIGINT NOT NULL,
    first_recorded_at TIMESTAMP NOT NULL
);

-- Grain: one violation. `key`: the event's key on its topic. `scope`:
-- - 'coupon': a rule within one key. The violation of one event (`state`: the state before the event), or one content
--   in conflict (`conflicting_duplicate`, without a state).
-- - 'cross': a rule across coupons or between topics. One violation per key, rule and `counterpart`, which is the order
--   of a coupon, or the coupon of an order.
-- `order_hash`: of the order, for rules between topics; look-ups use it. `user_id`, `owner`: for `wrong_user`, the
-- event's user, and the coupon's owner at that time. `trigger_…`: the event from which the grace of a rule between
-- topics counts.
CREATE TABLE violations (
    key_hash BIGINT NOT NULL,
    topic VARCHAR NOT NULL,
    key VARCHAR NOT NULL USING COMPRESSION uncompressed,
    event_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    violation VARCHAR NOT NULL,
    state VARCHAR,
    occurred_at TIMESTAMP NOT NULL,
    scope VARCHAR NOT NULL,
    counterpart VARCHAR USING COMPRESSION uncompressed,
    order_hash BIGINT,
    user_id VARCHAR USING COMPRESSION uncompressed,
    owner VARCHAR USING COMPRESSION uncompressed,
    trigger_topic VARCHAR,
    trigger_recorded_at TIMESTAMP
);

-- Narrow tables in which the rules across coupons and between topics look things up. All their data are also in the
-- tables above or in the journals.

-- Grain: one coupon of a campaign that was acquired, with its `acquired_…`.
CREATE TABLE acquisitions (
    campaign_hash BIGINT NOT NULL,
    campaign_id VARCHAR NOT NULL,
    user_hash BIGINT NOT NULL,
    acquired_by VARCHAR NOT NULL USING COMPRESSION uncompressed,
    key_hash BIGINT NOT NULL,
    coupon_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    acquired_at TIMESTAMP NOT NULL,
    acquired_event_id VARCHAR NOT NULL USING COMPRESSION uncompressed
);

-- Grain: one campaign and instant. The values in force from this instant to the campaign's next one. Null: no value.
CREATE TABLE campaign_terms (
    campaign_hash BIGINT NOT NULL,
    campaign_id VARCHAR NOT NULL,
    since TIMESTAMP NOT NULL,
    quantity BIGINT,
    per_user_limit BIGINT,
    claim_from TIMESTAMP,
    claim_until TIMESTAMP
);

-- Grain: one campaign and a quantity that it has or had. The cut (campaign_rules.py): the first acquisition in the
-- ranking that is over this quantity, or its place if it was removed since. Null if there are fewer acquisitions.
-- `before`: the number of acquisitions before the cut, which is the quantity if there are enough.
CREATE TABLE stock_cuts (
    campaign_hash BIGINT NOT NULL,
    campaign_id VARCHAR NOT NULL,
    quantity BIGINT NOT NULL,
    before BIGINT NOT NULL,
    acquired_at TIMESTAMP,
    acquired_event_id VARCHAR USING COMPRESSION uncompressed,
    coupon_id VARCHAR USING COMPRESSION uncompressed
);

-- Grain: one coupon in state `used`.
CREATE TABLE coupons_in_use (
    order_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    key_hash BIGINT NOT NULL,
    coupon_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    used_at TIMESTAMP NOT NULL,
    used_event_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    discount_minor BIGINT NOT NULL,
    min_spend_minor BIGINT,
    coupon_type VARCHAR,
    face_value_minor BIGINT,
    percent_off_bp BIGINT
);

-- Grain: one `used` event, legal or not.
CREATE TABLE uses (
    order_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    key_hash BIGINT NOT NULL,
    coupon_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    event_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    recorded_at TIMESTAMP NOT NULL
);

-- Grain: one order with a violation between topics that is not due yet, and may not be one when it is due.
CREATE TABLE awaited (
    order_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    due_at TIMESTAMP NOT NULL
);

-- Grain: one record of the log that was not folded.
CREATE TABLE dead_letters (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    recorded_at TIMESTAMP NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    reason VARCHAR NOT NULL,
    detail VARCHAR NOT NULL
);

-- Grain: one dead letter that an operator discarded. Derived from `coupon.operations`.
CREATE TABLE discarded (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    event_id VARCHAR NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    operator VARCHAR NOT NULL,
    reason VARCHAR NOT NULL
);

-- Grain: one partition of one topic. Always true: read = applied + repeats + conflicts + dead_letters.
CREATE TABLE checkpoints (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    next_offset BIGINT NOT NULL,
    read BIGINT NOT NULL,
    applied BIGINT NOT NULL,
    repeats BIGINT NOT NULL,
    conflicts BIGINT NOT NULL,
    dead_letters BIGINT NOT NULL,
    PRIMARY KEY (topic, log_partition)
);

-- Grain: one partition of one topic of the log. All its records that were recorded at or before `complete_until` have
-- been read. Unlike `checkpoints`, this depends on when the consumer looked, so it is not part of any digest.
CREATE TABLE partition_progress (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    complete_until TIMESTAMP NOT NULL,
    PRIMARY KEY (topic, log_partition)
);

-- Grain: the database. `data_clock`: the highest min(occurred_at, recorded_at) of all facts. `batch_…`: of the last
-- commit. `grace_minutes`: the grace with which the rules between topics were evaluated.
CREATE TABLE ledger (
    version INTEGER NOT NULL,
    data_clock TIMESTAMP,
    commits BIGINT NOT NULL,
    committed_at TIMESTAMP,
    batch_records BIGINT,
    batch_seconds DOUBLE,
    grace_minutes BIGINT NOT NULL
);

-- Grain: one record that the ledger itself still has to append to the log. Written in the transaction of the batch that
-- caused it, and removed once it is in the log. After a crash in between it is appended again; its deterministic id
-- makes the repeat harmless.
CREATE TABLE outbox (
    topic VARCHAR NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL
);

-- Grain: one projection (versions.py), with the version that filled its tables.
CREATE TABLE projections (
    name VARCHAR NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
);
