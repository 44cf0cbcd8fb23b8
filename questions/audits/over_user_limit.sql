-- Does `over_user_limit` mark exactly the coupons that a user acquired above the limit in force at the time?
-- Grain: one violation, missing or superfluous. An offender: an unreported breach of the limit, or a report without a
-- breach. Runs in parts of the users.
WITH ranked AS (
    SELECT *, row_number() OVER (PARTITION BY campaign_id, acquired_by
                                 ORDER BY acquired_at, acquired_event_id, coupon_id) AS place
    FROM acquisitions SEMI JOIN (SELECT campaign_id FROM campaign_terms WHERE per_user_limit IS NOT NULL)
    USING (campaign_id)
    WHERE user_hash BETWEEN $first AND $last
),
wanted AS (
    SELECT a.key_hash, a.coupon_id AS key, a.acquired_event_id AS event_id, a.acquired_at AS occurred_at
    FROM ranked a ASOF JOIN campaign_terms t ON t.campaign_id = a.campaign_id AND t.since <= a.acquired_at
    WHERE a.place > t.per_user_limit
),
kept AS (
    SELECT v.key_hash, v.key, v.event_id, v.occurred_at
    FROM violations v LEFT JOIN acquisitions a ON a.key_hash = v.key_hash AND a.coupon_id = v.key
    WHERE v.violation = 'over_user_limit' AND coalesce(a.user_hash, 0) BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
