-- The visible rows. Each view has the rows of a live table (schema `live`) that are about visible objects, and the same
-- columns. Macros that the scope defines (`compiled.py`): `campaign_in_scope`, `channel_in_scope` and `store_in_scope`
-- say whether a name is in scope (true if all are, never null), `campaigns_given` and so on whether any is out of it.
-- A view may read views above it only.

-- Coupons: by their campaign; by the channel of the claim, else of the issue; by the store of the order that they are on.
CREATE VIEW scoped.coupons AS
SELECT * FROM live.coupons
WHERE campaign_in_scope(campaign_id) AND channel_in_scope(coalesce(claim_channel, issue_channel))
  AND (NOT stores_given() OR order_id IN (SELECT order_id FROM live.orders WHERE store_in_scope(store)));

CREATE VIEW scoped.coupon_events AS
SELECT e.* FROM live.coupon_events e SEMI JOIN scoped.coupons c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id;

CREATE VIEW scoped.coupon_conflicts AS
SELECT e.* FROM live.coupon_conflicts e
SEMI JOIN scoped.coupons c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id;

-- The visible coupons that an order names in its row or in any event. Grain: one order that names some.
CREATE VIEW scoped.named_coupons AS
SELECT n.order_id, list(DISTINCT n.coupon_id) AS named
FROM (
    SELECT order_id, unnest(coupon_ids) AS coupon_id FROM live.orders WHERE len(coupon_ids) > 0
    UNION SELECT order_id, unnest(coupon_ids) FROM live.order_events WHERE len(coupon_ids) > 0
    UNION SELECT order_id, unnest(coupon_ids) FROM live.order_conflicts WHERE len(coupon_ids) > 0
) n
SEMI JOIN scoped.coupons c ON c.coupon_id = n.coupon_id
GROUP BY n.order_id;

-- Orders: by their channel and store; if campaigns are given, those that name a visible coupon, or that one is on.
-- Only visible coupons are named. If an order names others too, its coupon discounts are left out.
CREATE VIEW scoped.orders AS
SELECT o.* REPLACE (
           visible_ids(o.coupon_ids, n.named) AS coupon_ids,
           CASE WHEN names_others(o.coupon_ids, n.named) THEN without_coupons(o.discounts) ELSE o.discounts END AS discounts,
           CASE WHEN names_others(o.coupon_ids, n.named) THEN without_discounts(o.lines) ELSE o.lines END AS lines)
FROM live.orders o
LEFT JOIN scoped.named_coupons n ON n.order_id = o.order_id
WHERE channel_in_scope(o.channel) AND store_in_scope(o.store)
  AND (NOT campaigns_given() OR n.named IS NOT NULL
       OR o.order_id IN (SELECT order_id FROM scoped.coupons WHERE order_id IS NOT NULL));

CREATE VIEW scoped.order_events AS
SELECT e.* REPLACE (
           visible_ids(e.coupon_ids, n.named) AS coupon_ids,
           CASE WHEN names_others(e.coupon_ids, n.named) THEN without_coupons(e.discounts) ELSE e.discounts END AS discounts,
           CASE WHEN names_others(e.coupon_ids, n.named) THEN without_discounts(e.lines) ELSE e.lines END AS lines)
FROM live.order_events e
SEMI JOIN scoped.orders o ON o.order_id = e.order_id
LEFT JOIN scoped.named_coupons n ON n.order_id = e.order_id;

CREATE VIEW scoped.order_conflicts AS
SELECT e.* REPLACE (
           visible_ids(e.coupon_ids, n.named) AS coupon_ids,
           CASE WHEN names_others(e.coupon_ids, n.named) THEN without_coupons(e.discounts) ELSE e.discounts END AS discounts,
           CASE WHEN names_others(e.coupon_ids, n.named) THEN without_discounts(e.lines) ELSE e.lines END AS lines)
FROM live.order_conflicts e
SEMI JOIN scoped.orders o ON o.order_id = e.order_id
LEFT JOIN scoped.named_coupons n ON n.order_id = e.order_id;

-- Campaigns: those in scope; if channels or stores are given, those with a visible coupon. If only channels are given,
-- also those that run on one of them.
CREATE VIEW scoped.campaigns AS
SELECT * FROM live.campaigns
WHERE campaign_in_scope(campaign_id)
  AND (NOT (channels_given() OR stores_given()) OR (NOT stores_given() AND channel_in_scope(channel))
       OR campaign_id IN (SELECT campaign_id FROM scoped.coupons WHERE campaign_id IS NOT NULL));

CREATE VIEW scoped.campaign_events AS
SELECT e.* FROM live.campaign_events e SEMI JOIN scoped.campaigns c ON c.campaign_id = e.campaign_id;

CREATE VIEW scoped.campaign_conflicts AS
SELECT e.* FROM live.campaign_conflicts e SEMI JOIN scoped.campaigns c ON c.campaign_id = e.campaign_id;

CREATE VIEW scoped.campaign_terms AS
SELECT t.* FROM live.campaign_terms t SEMI JOIN scoped.campaigns c ON c.campaign_id = t.campaign_id;

-- Users: those with a visible coupon or order.
CREATE VIEW scoped.visible_users AS
SELECT owner AS user_id FROM scoped.coupons WHERE owner IS NOT NULL
UNION SELECT acquired_by FROM scoped.coupons WHERE acquired_by IS NOT NULL
UNION SELECT user_id FROM scoped.orders WHERE user_id IS NOT NULL;

-- Events of visible users: links to visible users only; touches only by visible campaigns and channels. Touches have no
-- store.
CREATE VIEW scoped.user_events AS
SELECT e.* FROM live.user_events e
SEMI JOIN scoped.visible_users u ON u.user_id = e.user_id
WHERE (e.type <> 'linked' OR e.alias_id IN (FROM scoped.visible_users))
  AND (e.type <> 'touched' OR (NOT stores_given() AND campaign_in_scope(e.campaign_id) AND channel_in_scope(e.channel)
       AND (e.campaign_id IS NULL OR e.campaign_id IN (SELECT campaign_id FROM scoped.campaigns))));

CREATE VIEW scoped.user_conflicts AS
SELECT e.* FROM live.user_conflicts e
SEMI JOIN scoped.visible_users u ON u.user_id = e.user_id
WHERE (e.type <> 'linked' OR e.alias_id IN (FROM scoped.visible_users))
  AND (e.type <> 'touched' OR (NOT stores_given() AND campaign_in_scope(e.campaign_id) AND channel_in_scope(e.channel)
       AND (e.campaign_id IS NULL OR e.campaign_id IN (SELECT campaign_id FROM scoped.campaigns))));

-- What depends on all events of a user is counted again from the visible ones.
CREATE VIEW scoped.users AS
SELECT u.* REPLACE (
           visible_ids(u.aliases, e.aliases) AS aliases, coalesce(e.touches, 0) AS touches,
           e.last_event_at AS last_event_at, coalesce(e.events, 0)::INTEGER AS events,
           e.first_recorded_at AS first_recorded_at)
FROM live.users u
SEMI JOIN scoped.visible_users v ON v.user_id = u.user_id
JOIN (
    SELECT user_id, list(alias_id) FILTER (alias_id IS NOT NULL) AS aliases,
           count(*) FILTER (type = 'touched') AS touches, max(occurred_at) AS last_event_at, count(*) AS events,
           min(recorded_at) AS first_recorded_at
    FROM scoped.user_events GROUP BY user_id
) e ON e.user_id = u.user_id;

-- The persons that the visible links make. For the name of a person, see projections/attribution/persons.py.
CREATE VIEW scoped.persons AS
WITH RECURSIVE links AS MATERIALIZED (
    SELECT DISTINCT user_id, alias_id FROM scoped.user_events
    WHERE type = 'linked' AND alias_id IS NOT NULL AND alias_id <> user_id
),
sides AS MATERIALIZED (
    SELECT user_id AS one, alias_id AS other FROM links UNION SELECT alias_id, user_id FROM links
),
named (user_id, name) USING KEY (user_id) AS (
    SELECT DISTINCT one, (CASE WHEN one IN (SELECT alias_id FROM links) THEN '1' ELSE '0' END) || one FROM sides
    UNION
    SELECT s.other, min(n.name) FROM named n JOIN sides s ON s.one = n.user_id
    JOIN recurring.named r ON r.user_id = s.other
    WHERE n.name < r.name GROUP BY s.other
)
SELECT user_id, name[2:] AS person FROM named;

-- Violations of visible objects, unless they are about another object that is not visible. An order that nobody placed
-- hides nothing.
CREATE VIEW scoped.violations AS
SELECT v.* FROM live.violations v
WHERE CASE v.topic
    WHEN 'coupon.events' THEN v.key IN (SELECT coupon_id FROM scoped.coupons)
        AND (v.counterpart IS NULL OR v.counterpart IN (SELECT order_id FROM scoped.orders)
             OR v.counterpart NOT IN (SELECT order_id FROM live.orders))
    WHEN 'order.events' THEN v.key IN (SELECT order_id FROM scoped.orders)
        AND (v.counterpart IS NULL OR v.counterpart IN (SELECT coupon_id FROM scoped.coupons))
    WHEN 'campaign.events' THEN v.key IN (SELECT campaign_id FROM scoped.campaigns)
    WHEN 'user.events' THEN v.key IN (SELECT user_id FROM scoped.users)
    ELSE false END;

CREATE VIEW scoped.acquisitions AS
SELECT a.* FROM live.acquisitions a SEMI JOIN scoped.coupons c ON c.key_hash = a.key_hash AND c.coupon_id = a.coupon_id;

CREATE VIEW scoped.coupons_in_use AS
SELECT u.* FROM live.coupons_in_use u SEMI JOIN scoped.coupons c ON c.key_hash = u.key_hash AND c.coupon_id = u.coupon_id;

CREATE VIEW scoped.uses AS
SELECT u.* FROM live.uses u SEMI JOIN scoped.coupons c ON c.key_hash = u.key_hash AND c.coupon_id = u.coupon_id;

-- The values of an order that is not visible are null, as if it had no events. Its lines show no discounts.
CREATE VIEW scoped.coupon_sales AS
SELECT s.key_hash, s.coupon_id, s.order_hash, s.order_id, s.used_at, s.acquired_at, s.discount_minor, s.campaign_id,
       s.coupon_type, s.coupon_channel, s.owner, s.coupon_currency,
       o.user_id AS buyer, o.channel, o.store, o.region, o.currency, o.gross_minor, o.net_minor, o.refunded_minor,
       o.cost_of_goods_minor, CASE WHEN o.cost_of_goods_minor IS NULL THEN o.lines END AS lines, o.paid_at,
       o.cancelled_at
FROM live.coupon_sales s
SEMI JOIN scoped.coupons c ON c.key_hash = s.key_hash AND c.coupon_id = s.coupon_id
LEFT JOIN scoped.orders o ON o.order_id = s.order_id;

-- Book-keeping that every question reads. What it counts over the whole ledger is left out.
CREATE VIEW scoped.ledger AS
SELECT * REPLACE (NULL::BIGINT AS batch_records, NULL::DOUBLE AS batch_seconds) FROM live.ledger;

CREATE VIEW scoped.checkpoints AS SELECT topic, log_partition, next_offset FROM live.checkpoints;

CREATE VIEW scoped.partition_progress AS SELECT * FROM live.partition_progress;
