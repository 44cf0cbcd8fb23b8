-- Which events of coupons are behind an alert? Grain: one event of the journal. Each list names the values that a field
-- may have; null: any. `types`: the types of events. `after_type`: only events that follow one of this type of the same
-- coupon within `after_us` microseconds. The campaign is that of the event, else of its coupon.
SELECT e.event_id, e.type, e.occurred_at, e.key_hash, e.coupon_id, e.user_id, e.order_id, e.ip, e.device_id,
       coalesce(e.campaign_id, c.campaign_id) AS campaign_id
FROM coupon_events e LEFT JOIN coupons c ON c.key_hash = e.key_hash AND c.coupon_id = e.coupon_id
WHERE ($since::TIMESTAMP IS NULL OR e.occurred_at > $since)
  AND ($until::TIMESTAMP IS NULL OR least(e.occurred_at, e.recorded_at) <= $until)
  AND ($types::VARCHAR[] IS NULL OR list_contains($types, e.type))
  AND ($campaign_id::VARCHAR[] IS NULL OR list_contains($campaign_id, coalesce(e.campaign_id, c.campaign_id)))
  AND ($coupon_id::VARCHAR[] IS NULL OR list_contains($coupon_id, e.coupon_id))
  AND ($user_id::VARCHAR[] IS NULL OR list_contains($user_id, e.user_id))
  AND ($order_id::VARCHAR[] IS NULL OR list_contains($order_id, e.order_id))
  AND ($device_id::VARCHAR[] IS NULL OR list_contains($device_id, e.device_id))
  AND ($ip::VARCHAR[] IS NULL OR list_contains($ip, e.ip))
  AND ($phone_prefix::VARCHAR[] IS NULL OR list_contains($phone_prefix, e.phone_prefix))
  AND ($channel::VARCHAR[] IS NULL OR list_contains($channel, e.channel))
  AND ($code::VARCHAR[] IS NULL OR list_contains($code, e.code))
  AND ($source::VARCHAR[] IS NULL OR list_contains($source, e.source))
  AND ($store::VARCHAR[] IS NULL OR list_contains($store, e.store))
  AND ($coupon_type::VARCHAR[] IS NULL OR list_contains($coupon_type, coalesce(e.coupon_type, c.coupon_type)))
  AND ($after_type::VARCHAR IS NULL OR EXISTS (
        SELECT 1 FROM coupon_events a
        WHERE a.key_hash = e.key_hash AND a.coupon_id = e.coupon_id AND a.type = $after_type
          AND a.occurred_at BETWEEN e.occurred_at - to_microseconds($after_us) AND e.occurred_at))
