-- Which events of coupons broke the rules that an alert is about? Grain: one event of the journal. A violation of an
-- order stands for the events of its coupons on this order. Explained and provisional violations do not count. `codes`,
-- `campaign_id`, `channel`: the values that there may be; null: any.
WITH broken AS (
    SELECT DISTINCT topic, key, counterpart, event_id FROM judged_violations
    WHERE NOT explained AND NOT provisional AND NOT superseded(event_id, violation)
      AND ($codes::VARCHAR[] IS NULL OR list_contains($codes, violation))
      AND ($since::TIMESTAMP IS NULL OR occurred_at > $since)
      AND ($until::TIMESTAMP IS NULL OR occurred_at <= $until)
)
SELECT DISTINCT e.event_id, e.type, e.occurred_at, e.key_hash, e.coupon_id, e.user_id, e.order_id, e.ip, e.device_id,
       coalesce(e.campaign_id, c.campaign_id) AS campaign_id
FROM broken b
JOIN coupon_events e ON (b.topic = 'coupon.events' AND e.coupon_id = b.key AND e.event_id = b.event_id)
    OR (b.topic = 'order.events' AND e.order_id = b.key AND (b.counterpart IS NULL OR e.coupon_id = b.counterpart))
LEFT JOIN coupons c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id
WHERE ($campaign_id::VARCHAR[] IS NULL OR list_contains($campaign_id, coalesce(e.campaign_id, c.campaign_id)))
  AND ($channel::VARCHAR[] IS NULL OR list_contains($channel, coalesce(e.channel, c.claim_channel, c.issue_channel)))
