-- Which of the coupons in `wanted` belong to a campaign that ended before the coupon's own end (`ends_at`)? Grain: one
-- coupon. $standing: the event types that set a campaign's status, in canonical order.
WITH standing AS (
    SELECT campaign_id, occurred_at, last(type ORDER BY list_position($standing::VARCHAR[], type), event_id) AS status
    FROM campaign_events WHERE type IN (SELECT unnest($standing::VARCHAR[]))
    GROUP BY campaign_id, occurred_at
)
SELECT w.row_id
FROM wanted w ASOF JOIN standing s ON s.campaign_id = w.campaign_id AND w.ends_at > s.occurred_at
WHERE s.status = 'ended'
