-- How many events stand behind an alert, and of how many users, coupons and orders? Grain: the alert.
SELECT count(*) AS count, count(DISTINCT user_id) AS users, count(DISTINCT key_hash) AS coupons,
       count(DISTINCT order_id) AS orders
FROM events_behind
