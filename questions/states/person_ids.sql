-- Which data does each id of a person ($ids) have? Grain: one id, by id.
SELECT i.id AS user_id, count(c.coupon_id) AS coupons, count(*) FILTER (c.state = 'used') AS used,
       min(c.acquired_at) AS first_acquired_at, max(c.last_event_at) AS last_event_at
FROM (SELECT unnest($ids::VARCHAR[]) AS id) i LEFT JOIN coupons c ON c.owner = i.id
GROUP BY i.id ORDER BY i.id
