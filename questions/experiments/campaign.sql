-- Which facts about a campaign bound the window of its experiment? Grain: one row.
SELECT p.name, p.currency, p.claim_from, p.claim_until, p.campaign_id IS NOT NULL AS known,
       e.published_at, e.ended_at, e.first_assigned_at, c.valid_until, c.first_given_at,
       (SELECT data_clock FROM ledger) AS data_clock,
       o.first_order_at, o.last_order_at
FROM (
    SELECT min(occurred_at) FILTER (type = 'published') AS published_at,
           max(occurred_at) FILTER (type = 'ended') AS ended_at,
           min(occurred_at) FILTER (type = 'assigned') AS first_assigned_at
    FROM campaign_events WHERE key_hash = $key_hash AND campaign_id = $campaign
) e
CROSS JOIN (
    SELECT max(valid_until) AS valid_until, min(acquired_at) AS first_given_at
    FROM coupons WHERE campaign_id = $campaign
) c
CROSS JOIN (SELECT min(paid_at) AS first_order_at, max(paid_at) AS last_order_at FROM orders) o
LEFT JOIN campaigns p ON p.key_hash = $key_hash AND p.campaign_id = $campaign
