-- Which events had the objects that count in two periods? Grain: one object and event in one of the periods. Input: `shown`
-- (kind, id).
SELECT s.kind, s.id, 'coupon.events' AS topic, e.log_partition, e.log_offset, e.event_id, e.type, e.recorded_at
FROM shown s JOIN coupon_events e ON s.kind = 'coupon_id' AND e.coupon_id = s.id
WHERE e.occurred_at >= $since AND e.occurred_at < $until
   OR e.occurred_at >= $before_since AND e.occurred_at < $before_until
UNION ALL
SELECT s.kind, s.id, 'order.events', e.log_partition, e.log_offset, e.event_id, e.type, e.recorded_at
FROM shown s JOIN order_events e ON s.kind = 'order_id' AND e.order_id = s.id
WHERE e.occurred_at >= $since AND e.occurred_at < $until
   OR e.occurred_at >= $before_since AND e.occurred_at < $before_until
UNION ALL
SELECT s.kind, s.id, 'campaign.events', e.log_partition, e.log_offset, e.event_id, e.type, e.recorded_at
FROM shown s JOIN campaign_events e ON s.kind = 'campaign_id' AND e.campaign_id = s.id
WHERE e.occurred_at >= $since AND e.occurred_at < $until
   OR e.occurred_at >= $before_since AND e.occurred_at < $before_until
