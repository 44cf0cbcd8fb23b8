-- Which rules were broken on this order? Grain: one violation, by time. These are the violations of the order itself,
-- and of those events of its coupons that name this order or no order. `superseded`, `explained`, `provisional`: see
-- violations.sql.
SELECT v.violation, v.occurred_at, v.topic, v.key, v.event_id, v.state,
       superseded(v.event_id, v.violation) AS superseded, v.explained, v.provisional
FROM judged_violations v
WHERE (v.topic = 'order.events' AND v.key = $order)
   OR (v.topic = 'coupon.events' AND v.key IN (SELECT unnest($coupons::VARCHAR[]))
       AND coalesce(v.counterpart, $order) = $order AND NOT EXISTS (
           FROM coupon_events e
           WHERE e.key_hash = v.key_hash AND e.coupon_id = v.key AND e.event_id = v.event_id AND e.order_id <> $order))
ORDER BY v.occurred_at, v.topic, v.key, v.event_id, v.violation
