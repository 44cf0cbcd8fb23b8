-- The row of each coupon in the earlier and in the later cut, and the events in between. Grain: one coupon with an
-- event in `new_events`, by id. A coupon without such an event is left out, even if its key hash equals that of another
-- coupon that has one. $types: the types of coupon events in canonical order.
WITH events AS (
    SELECT key_hash, coupon_id, list(type ORDER BY occurred_at, place, encode(event_id), recorded_at) AS types,
           list(event_id ORDER BY occurred_at, place, encode(event_id), recorded_at) AS event_ids
    FROM (SELECT *, list_position($types, type) AS place FROM new_events)
    GROUP BY ALL
)
SELECT b AS earlier, a AS later, e.types, e.event_ids
FROM events e
JOIN later a ON a.key_hash = e.key_hash AND a.coupon_id = e.coupon_id
LEFT JOIN earlier b ON b.key_hash = e.key_hash AND b.coupon_id = e.coupon_id
WHERE $campaign IS NULL OR a.campaign_id = $campaign OR b.campaign_id = $campaign
ORDER BY e.coupon_id
