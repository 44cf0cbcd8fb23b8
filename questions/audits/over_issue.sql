-- Does `over_issue` mark exactly the coupons acquired beyond the quantity in force at the time?
-- Grain: one violation, missing or superfluous. An offender: an unreported breach of the stock, or a report without a
-- breach.
WITH in_force AS (
    SELECT a.*, t.quantity
    FROM (SELECT * FROM acquisitions WHERE key_hash BETWEEN $first AND $last) a
    ASOF JOIN campaign_terms t ON t.campaign_id = a.campaign_id AND t.since <= a.acquired_at
),
wanted AS (
    SELECT a.key_hash, a.coupon_id AS key, a.acquired_event_id AS event_id, a.acquired_at AS occurred_at
    FROM in_force a JOIN stock_cuts c ON c.campaign_id = a.campaign_id AND c.quantity = a.quantity
    WHERE c.acquired_at IS NOT NULL
      AND (a.acquired_at, a.acquired_event_id, a.coupon_id) >= (c.acquired_at, c.acquired_event_id, c.coupon_id)
),
kept AS (
    SELECT key_hash, key, event_id, occurred_at
    FROM violations WHERE violation = 'over_issue' AND key_hash BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
