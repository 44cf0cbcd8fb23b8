-- The live projection's tables beside the journals (which follow the Avro schemas, see journal.py).
-- `coupon_state` is an ENUM of the states of lifecycle.toml. Instants are UTC. `key_hash` is signature.stable_hash of
-- the key: joins use it, always together with the key. Ids are stored uncompressed, as in the journals.
-- Book-keeping columns end each row: last_type and last_event_at (of the canonically last event folded), ids_low,
-- ids_high (signature.py), first_recorded_at (no event of the key was recorded before).

-- Grain: one coupon. The values are those of LIFECYCLE section 3; `acquired_…`: the first event that made somebody its
-- owner, `used_event_id`: the one of `used_at`. `extended_at`: of the last legal `extended` event, which `valid_until` is
-- from then; null where `valid_until` is that of the first event that carries one.
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

-- Grain: one order. Values are those of the canonically last event that carries each; `placed_at` and `paid_at` of the
-- first event of that type; `cancelled_at` of the first cancellation that no payment follows (a payment that comes after
-- makes the order stand again); `repaid_at` of the first payment that follows a cancellation; `refunded_minor` is the sum over all refunds, null without any.
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

-- Grain: one campaign. `status`: the canonically last of drafted, published, unpublished, ended.
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

-- Grain: one broken rule. `key` is the id on the topic. `scope` keeps two kinds apart:
-- 'coupon': of one event (section 3; `state`: the one that the event found), or one content that conflicts with its
-- identity (`conflicting_duplicate`, no state). 'cross': across coupons and between topics (section 4), one for a key,
-- a rule and a `counterpart`: the order of a coupon, the coupon of an order. `order_hash`: of the order that a rule
-- between topics is about, what its violations are found by. `user_id`, `owner`: of a `wrong_user`, the event's user and
-- the coupon's owner at that time. `trigger_…`: the event from which on a rule between topics can be judged.
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

-- What the rules of section 4 look things up in: narrow, and nothing that is not in the tables above or the journals.

-- Grain: one coupon of a campaign that somebody has acquired (the coupon's `acquired_…`).
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

-- Grain: one campaign and an instant from which these values are in force (null: none yet), up to the next one.
CREATE TABLE campaign_terms (
    campaign_hash BIGINT NOT NULL,
    campaign_id VARCHAR NOT NULL,
    since TIMESTAMP NOT NULL,
    quantity BIGINT,
    per_user_limit BIGINT,
    claim_from TIMESTAMP,
    claim_until TIMESTAMP
);

-- Grain: one campaign and a quantity that it has or had. The acquisition (in the order of the ranks) from which on that
-- many were out, or the place where it stood, if it went away since; null where fewer are. `before`: how many stand
-- before it, the quantity unless there is none.
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

-- Grain: one `used` event, whatever became of it.
CREATE TABLE uses (
    order_hash BIGINT NOT NULL,
    order_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    key_hash BIGINT NOT NULL,
    coupon_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    event_id VARCHAR NOT NULL USING COMPRESSION uncompressed,
    recorded_at TIMESTAMP NOT NULL
);

-- Grain: one order that a rule between topics will be due for, unless something happens until then.
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

-- Grain: one dead letter that an operator settled as it is. Noted from `coupon.operations`, which says so for good.
CREATE TABLE discarded (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    log_offset BIGINT NOT NULL,
    event_id VARCHAR NOT NULL,
    occurred_at TIMESTAMP NOT NULL,
    operator VARCHAR NOT NULL,
    reason VARCHAR NOT NULL
);

-- Grain: one partition of one topic. read = applied + repeats + conflicts + dead_letters, always.
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

-- Grain: one partition of one topic that the log has. Every record of it that was recorded at or before `complete_until`
-- is in the tables. Unlike `checkpoints` it depends on when the consumer looked, so it is in no digest.
CREATE TABLE partition_progress (
    topic VARCHAR NOT NULL,
    log_partition INTEGER NOT NULL,
    complete_until TIMESTAMP NOT NULL,
    PRIMARY KEY (topic, log_partition)
);

-- Grain: the database. `data_clock`: the highest min(occurred_at, recorded_at) applied. `batch_…`: of the last commit.
-- `grace_minutes`: what the rules between topics were evaluated with.
CREATE TABLE ledger (
    version INTEGER NOT NULL,
    data_clock TIMESTAMP,
    commits BIGINT NOT NULL,
    committed_at TIMESTAMP,
    batch_records BIGINT,
    batch_seconds DOUBLE,
    grace_minutes BIGINT NOT NULL
);

-- Grain: one record that the ledger itself still has to append. Written with the batch that led to it, removed once it
-- is in the log; appended again after a crash in between, which its deterministic id makes a harmless repeat.
CREATE TABLE outbox (
    topic VARCHAR NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL
);

-- Grain: one projection (versions.py), with the version of the code that filled its tables.
CREATE TABLE projections (
    name VARCHAR NOT NULL PRIMARY KEY,
    version INTEGER NOT NULL
);
