-- How many coupons are in each state? Grain: one state, in the order of the lifecycle.
SELECT state::VARCHAR AS state, count(*) AS coupons FROM coupons GROUP BY coupons.state ORDER BY coupons.state
