-- Does every row count as many violations as its own events have?
-- Grain: one key of a table. An offender: a violation was lost, duplicated or added, or its key has no row.
WITH counted AS (
    SELECT 'coupon.events' AS topic, key_hash, coupon_id AS key, violations FROM coupons WHERE violations <> 0 AND key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'order.events', key_hash, order_id, violations FROM orders WHERE violations <> 0 AND key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaign.events', key_hash, campaign_id, violations FROM campaigns WHERE violations <> 0 AND key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'user.events', key_hash, user_id, violations FROM users WHERE violations <> 0 AND key_hash BETWEEN $first AND $last
),
kept AS (
    SELECT topic, key_hash, key, count(*) AS violations
    FROM violations WHERE scope = 'coupon' AND key_hash BETWEEN $first AND $last GROUP BY ALL
)
SELECT topic, key, coalesce(c.violations, 0) AS row_violations, coalesce(k.violations, 0) AS violations
FROM counted c FULL JOIN kept k USING (topic, key_hash, key)
WHERE coalesce(c.violations, 0) <> coalesce(k.violations, 0)
