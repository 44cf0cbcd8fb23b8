-- How much cash came in and went out, day by day? Grain: one day (of the time zone whose UTC offsets are in `zone`) and
-- currency. In: payments of orders. Out: refunds, payments of cancelled orders, booked costs by kind. A discount is not
-- cash but missing income (`discount_minor`, beside the flows); it comes from `taken` (input: discounts.sql), so that
-- it has the same sum as the split.
WITH moved AS (
    SELECT paid_at AS moved_at, currency, net_minor AS paid, 0 AS refunded, 0 AS cancelled, NULL AS cost_kind, 0 AS cost,
           0 AS discount
    FROM orders WHERE paid_at IS NOT NULL
    UNION ALL
    SELECT e.occurred_at, o.currency, 0, e.refund_minor, 0, NULL, 0, 0
    FROM order_events e JOIN orders o ON o.key_hash = e.key_hash AND o.order_id = e.order_id WHERE e.type = 'refunded'
    UNION ALL
    SELECT cancelled_at, currency, 0, 0, greatest(net_minor - coalesce(refunded_minor, 0), 0), NULL, 0, 0
    FROM orders WHERE cancelled_at IS NOT NULL AND paid_at IS NOT NULL
    UNION ALL
    SELECT occurred_at, currency, 0, 0, 0, cost_kind, amount_minor, 0 FROM campaign_events WHERE type = 'cost_booked'
    UNION ALL
    SELECT taken_at, currency, 0, 0, 0, NULL, 0, amount_minor FROM taken
)
SELECT (m.moved_at + to_microseconds(z.offset_us))::DATE AS day, m.currency, sum(paid) AS paid_minor,
       sum(refunded) AS refunded_minor, sum(cancelled) AS cancelled_minor,
       coalesce(sum(cost) FILTER (cost_kind = 'acquisition'), 0) AS acquisition_minor,
       coalesce(sum(cost) FILTER (cost_kind = 'media'), 0) AS media_minor,
       coalesce(sum(cost) FILTER (cost_kind = 'operation'), 0) AS operation_minor,
       coalesce(sum(cost) FILTER (cost_kind = 'subsidy'), 0) AS subsidy_minor,
       sum(paid) - sum(refunded) - sum(cancelled) - sum(cost) AS flow_minor, sum(discount) AS discount_minor
FROM moved m ASOF JOIN zone z ON m.moved_at >= z.since
WHERE ($since::TIMESTAMP IS NULL OR m.moved_at >= $since) AND ($until::TIMESTAMP IS NULL OR m.moved_at < $until)
GROUP BY ALL
ORDER BY day, m.currency
