-- The tables of the live projection, except the journals, whose columns follow the Avro schemas (journal.py).
-- `coupon_state` is an ENUM of the states in lifecycle.toml. Instants are in UTC. `key_hash` is signature.stable_hash
-- of the key; joins use it together with the key. Ids are stored uncompressed, as in the journals. The rows of coupons,
-- orders, campaigns and users end with book-keeping columns. `last_event_at`, `last_type`: instant and type of the
-- canonically last event that was folded. `events`, `violations`: the number of distinct events, and of violations
-- within the key. `ids_low`, `ids_high`: the id filter (signature.py). `first_recorded_at`: no event of the key was
-- recorded before this instant.

-- Grain: one coupon. For the values, see docs/events.md. `acquired_…`: instant, id and user of the first event that set
-- an owner. `used_event_id`: the id of the event at `used_at`. `extended_at`: the instant of the last legal `extended`
-- event, from which `valid_until` is then taken; null if `valid_until` is from the first event that carries one.
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

-- Grain: one order. Each value is from the canonically last event that carries it. `placed_at`, `paid_at`: the instant
-- of the first event of this type. `cancelled_at`: the instant of the first cancellation that no payment follows; null
-- if a payment follows every cancellation, since the order then stands again. `repaid_at`: the instant of the first
-- payment after a cancellation. `refunded_minor`: the sum of all refunds; null if there are none.
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

-- Grain: one campaign. `status`: the type of the canonically last event among `drafted`, `published`, `unpublished` and
-- `ended`. `rule_version`: the event_id of the canonically last event among `drafted`, `published`, `unpublished` and
-- `amended`. Every other value is from the canonically last event that carries it, of a type in entities.TERM_EVENTS.
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

-- Grain: one user. `aliases`: the ids that `linked` events of this user name, sorted. `touches`: the number of
-- `touched` events.
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

-- Grain: one violation. `topic`, `key`: the coupon, order, campaign or user that breaks the rule. `event_id`,
-- `occurred_at`: the event by which it does. This is an event of this key, except that `below_min_after_refund` is a
-- violation of the coupon by a refund of its order. `scope`:
-- - 'coupon': a rule within one key, on any topic. Either an event breaks the rule (`state`: the state before the
--   event), or a delivery is in conflict (`conflicting_duplicate`; `state` is null).
-- - 'cross': a rule across coupons or between topics. There is one violation per key, rule and `counterpart`, which is
--   the order if `key` is a coupon, or the coupon if `key` is an order.
-- `order_hash`: the hash of the order, only for rules between topics; used for look-ups. `user_id`, `owner`: only for
-- `wrong_user`: the event's user, and the coupon's owner at that time. `trigger_…`: topic and `recorded_at` of the
-- event with which the grace of a rule between topics begins.
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

-- The following narrow tables, up to `awaited`, serve look-ups of the rules across coupons and between topics. They are
-- derived from the tables above and the journals.

-- Grain: one coupon that belongs to a campaign and was acquired. `acquired_…`: as in `coupons`.
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

-- Grain: one campaign and instant. The terms that are in force from `since` to the campaign's next `since`. Null: no
-- event has set this term yet.
CREATE TABLE campaign_terms (
    campaign_hash BIGINT NOT NULL,
    campaign_id VARCHAR NOT NULL,
    since TIMESTAMP NOT NULL,
    quantity BIGINT,
    per_user_limit BIGINT,
    claim_from TIMESTAMP,
    claim_until TIMESTAMP
);

-- Grain: one campaign and one quantity that its terms have at some instant. `acquired_at`, `acquired_event_id`,
-- `coupon_id`: the cut (campaign_rules.py), that is, the place in the ranking of the first acquisition that is over
-- this quantity; null if no acquisition is. `before`: the number of acquisitions before the cut: the quantity, or all
-- acquisitions if there are fewer.
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

-- Grain: one `used` event of a coupon, legal or not.
CREATE TABLE uses (
    order_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    key_hash BIGINT NOT NULL,
    coupon_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    event_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    recorded_at TIMESTAMP NOT NULL
);

-- Grain: one order that breaks a rule between topics, but the grace is not over, so this violation is not stored. At
-- `due_at` by the data's clock, the order is evaluated again, and may no longer break the rule.
CREATE TABLE awaited (
    order_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    due_at TIMESTAMP NOT NULL
);

-- Grain: one record of the log that cannot be folded.
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

-- Grain: one dead letter that an operator discarded. Derived from the topic `coupon.operations`. `event_id`: the id of
-- the operation.
CREATE TABLE discarded (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    event_id VARCHAR NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    operator VARCHAR NOT NULL,
    reason VARCHAR NOT NULL
);

-- Grain: one partition of one topic that was read: its next offset and its account. Always true: read = applied +
-- repeats + conflicts + dead_letters.
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
-- been read. Unlike `checkpoints`, this depends on when the consumer asked the log for its ends, so no digest includes
-- it.
CREATE TABLE partition_progress (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    complete_until TIMESTAMP NOT NULL,
    PRIMARY KEY (topic, log_partition)
);

-- Grain: the database. `data_clock`: the highest min(occurred_at, recorded_at) of all facts. `commits`: the number of
-- commits of the consumer; `committed_at`: the instant of the last one; `batch_…`: records and seconds of its batch.
-- `grace_minutes`: the grace with which the rules between topics were evaluated.
CREATE TABLE ledger (
    version INTEGER NOT NULL,
    data_clock TIMESTAMP,
    commits BIGINT NOT NULL,
    committed_at TIMESTAMP,
    batch_records BIGINT,
    batch_seconds DOUBLE,
    grace_minutes BIGINT NOT NULL
);

-- Grain: one record that the ledger itself still has to append to the log. It is stored in the transaction of the batch
-- that caused it, and deleted once it is in the log. If the process crashes in between, the record is appended again.
-- Its id is deterministic, so it then counts as a repeat.
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
