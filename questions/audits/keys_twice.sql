-- Does every key have only one row?
-- Grain: one key of a table. An offender: sums over the table count it more than once.
WITH keys AS (
    SELECT 'coupons' AS projection, key_hash, coupon_id AS key FROM coupons WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'orders', key_hash, order_id FROM orders WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaigns', key_hash, campaign_id FROM campaigns WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'users', key_hash, user_id FROM users WHERE key_hash BETWEEN $first AND $last
)
SELECT projection, key, count(*) AS times FROM keys GROUP BY projection, key_hash, key HAVING count(*) > 1
