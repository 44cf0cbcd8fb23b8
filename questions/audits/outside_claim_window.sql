-- Does `outside_claim_window` mark exactly the coupons acquired outside the window in force at the time?
-- Grain: one violation, missing or superfluous. An offender: a breach that is not reported, or a report without a
-- breach.
WITH in_force AS (
    SELECT a.*, t.claim_from, t.claim_until
    FROM (SELECT * FROM acquisitions WHERE key_hash BETWEEN $first AND $last) a
    ASOF JOIN campaign_terms t ON t.campaign_id = a.campaign_id AND t.since <= a.acquired_at
),
wanted AS (
    SELECT key_hash, coupon_id AS key, acquired_event_id AS event_id, acquired_at AS occurred_at
    FROM in_force WHERE acquired_at < claim_from OR acquired_at > claim_until
),
kept AS (
    SELECT key_hash, key, event_id, occurred_at
    FROM violations WHERE violation = 'outside_claim_window' AND key_hash BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
