-- Does every order have the values of the last event in canonical order that carries each, and the sum of its refunds?
-- Grain: one order. An offender: its row differs from its events.
WITH history AS (
    SELECT key_hash, order_id, event_id, type, occurred_at, user_id, channel, store, region, currency, gross_minor,
           net_minor, discounts, cost_of_goods_minor, reason, coupon_ids, lines, refund_minor,
           row_number() OVER (PARTITION BY key_hash, order_id
                              ORDER BY occurred_at, list_position($order_types, type), event_id) AS place
    FROM order_events WHERE key_hash BETWEEN $first AND $last
),
carried AS (
    SELECT key_hash, order_id,
           {user_id: arg_max(user_id, place) FILTER (user_id IS NOT NULL),
            channel: arg_max(channel, place) FILTER (channel IS NOT NULL),
            store: arg_max(store, place) FILTER (store IS NOT NULL),
            region: arg_max(region, place) FILTER (region IS NOT NULL),
            currency: arg_max(currency, place) FILTER (currency IS NOT NULL),
            gross_minor: arg_max(gross_minor, place) FILTER (gross_minor IS NOT NULL),
            net_minor: arg_max(net_minor, place) FILTER (net_minor IS NOT NULL),
            discounts: arg_max(discounts, place) FILTER (discounts IS NOT NULL),
            cost_of_goods_minor: arg_max(cost_of_goods_minor, place) FILTER (cost_of_goods_minor IS NOT NULL),
            reason: arg_max(reason, place) FILTER (reason IS NOT NULL),
            coupon_ids: arg_max(coupon_ids, place) FILTER (coupon_ids IS NOT NULL),
            lines: arg_max(lines, place) FILTER (lines IS NOT NULL),
            placed_at: min(occurred_at) FILTER (type = 'placed'),
            paid_at: min(occurred_at) FILTER (type = 'paid'),
            cancelled_at: min(occurred_at) FILTER (type = 'cancelled' AND place > last_paid),
            repaid_at: min(occurred_at) FILTER (type = 'paid' AND place > first_cancelled),
            refunded_minor: sum(refund_minor) FILTER (type = 'refunded')} AS journal
    FROM (SELECT *, min(place) FILTER (type = 'cancelled') OVER (PARTITION BY key_hash, order_id) AS first_cancelled,
                 coalesce(max(place) FILTER (type = 'paid') OVER (PARTITION BY key_hash, order_id), 0) AS last_paid
          FROM history)
    GROUP BY ALL
),
kept AS (
    SELECT key_hash, order_id,
           {user_id: user_id, channel: channel, store: store, region: region, currency: currency,
            gross_minor: gross_minor, net_minor: net_minor, discounts: discounts,
            cost_of_goods_minor: cost_of_goods_minor, reason: reason, coupon_ids: coupon_ids, lines: lines,
            placed_at: placed_at, paid_at: paid_at, cancelled_at: cancelled_at, repaid_at: repaid_at,
            refunded_minor: refunded_minor} AS row_says
    FROM orders WHERE key_hash BETWEEN $first AND $last
)
SELECT order_id, row_says, journal
FROM kept JOIN carried USING (key_hash, order_id)
WHERE row_says IS DISTINCT FROM journal
