-- The tables without personal data. Each view has the visible rows (schema `scoped`) and the same columns. Macros
-- (`compiled.py`): `pseudonym(user_id)`; `pseudonym_hash(key_hash, user_id)`, the key's hash of the pseudonym; and
-- `segment_only(attributes)`.
CREATE VIEW coupons AS
SELECT * REPLACE (pseudonym(owner) AS owner, pseudonym(acquired_by) AS acquired_by) FROM scoped.coupons;

CREATE VIEW coupon_events AS
SELECT * REPLACE (
           pseudonym(user_id) AS user_id, NULL::VARCHAR AS ip, NULL::VARCHAR AS device_id,
           NULL::VARCHAR AS phone_prefix, segment_only(attributes) AS attributes)
FROM scoped.coupon_events;

CREATE VIEW coupon_conflicts AS
SELECT * REPLACE (
           pseudonym(user_id) AS user_id, NULL::VARCHAR AS ip, NULL::VARCHAR AS device_id,
           NULL::VARCHAR AS phone_prefix, segment_only(attributes) AS attributes)
FROM scoped.coupon_conflicts;

CREATE VIEW orders AS SELECT * REPLACE (pseudonym(user_id) AS user_id) FROM scoped.orders;

CREATE VIEW order_events AS SELECT * REPLACE (pseudonym(user_id) AS user_id) FROM scoped.order_events;

CREATE VIEW order_conflicts AS SELECT * REPLACE (pseudonym(user_id) AS user_id) FROM scoped.order_conflicts;

CREATE VIEW campaigns AS SELECT * FROM scoped.campaigns;

CREATE VIEW campaign_events AS SELECT * REPLACE (pseudonym(user_id) AS user_id) FROM scoped.campaign_events;

CREATE VIEW campaign_conflicts AS SELECT * REPLACE (pseudonym(user_id) AS user_id) FROM scoped.campaign_conflicts;

CREATE VIEW campaign_terms AS SELECT * FROM scoped.campaign_terms;

CREATE VIEW users AS
SELECT * REPLACE (
           pseudonym_hash(key_hash, user_id) AS key_hash, pseudonym(user_id) AS user_id,
           segment_only(attributes) AS attributes, [pseudonym(alias) FOR alias IN aliases] AS aliases)
FROM scoped.users;

CREATE VIEW user_events AS
SELECT * REPLACE (
           pseudonym_hash(key_hash, user_id) AS key_hash, pseudonym(user_id) AS user_id,
           segment_only(attributes) AS attributes, pseudonym(alias_id) AS alias_id)
FROM scoped.user_events;

CREATE VIEW user_conflicts AS
SELECT * REPLACE (
           pseudonym_hash(key_hash, user_id) AS key_hash, pseudonym(user_id) AS user_id,
           segment_only(attributes) AS attributes, pseudonym(alias_id) AS alias_id)
FROM scoped.user_conflicts;

CREATE VIEW persons AS SELECT pseudonym(user_id) AS user_id, pseudonym(person) AS person FROM scoped.persons;

CREATE VIEW violations AS
SELECT * REPLACE (
           CASE WHEN topic = 'user.events' THEN pseudonym_hash(key_hash, key) ELSE key_hash END AS key_hash,
           CASE WHEN topic = 'user.events' THEN pseudonym(key) ELSE key END AS key,
           pseudonym(user_id) AS user_id, pseudonym(owner) AS owner)
FROM scoped.violations;

CREATE VIEW acquisitions AS
SELECT * REPLACE (pseudonym_hash(user_hash, acquired_by) AS user_hash, pseudonym(acquired_by) AS acquired_by)
FROM scoped.acquisitions;

CREATE VIEW coupons_in_use AS SELECT * FROM scoped.coupons_in_use;

CREATE VIEW uses AS SELECT * FROM scoped.uses;

CREATE VIEW coupon_sales AS
SELECT * REPLACE (pseudonym(owner) AS owner, pseudonym(buyer) AS buyer) FROM scoped.coupon_sales;

CREATE VIEW event_counts AS SELECT * FROM scoped.event_counts;

CREATE VIEW ledger AS SELECT * FROM scoped.ledger;

CREATE VIEW checkpoints AS SELECT * FROM scoped.checkpoints;

CREATE VIEW partition_progress AS SELECT * FROM scoped.partition_progress;
