-- When were the `used` events in `triggers` recorded? Grain: one event.
SELECT t.trigger_coupon_id, t.trigger_event_id, any_value(u.recorded_at) AS recorded_at
FROM uses u
JOIN triggers t ON t.order_hash = u.order_hash AND t.order_id = u.order_id AND t.trigger_hash = u.key_hash
               AND t.trigger_coupon_id = u.coupon_id AND t.trigger_event_id = u.event_id
GROUP BY ALL
