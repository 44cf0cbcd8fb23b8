-- Does every event identity occur once in its journal?
-- Grain: one identity (topic, key, event_id). An offender: an event that was folded twice.
WITH identities AS (
    SELECT 'coupon.events' AS topic, key_hash, coupon_id AS key, event_id FROM coupon_events WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'order.events', key_hash, order_id, event_id FROM order_events WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaign.events', key_hash, campaign_id, event_id FROM campaign_events WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'user.events', key_hash, user_id, event_id FROM user_events WHERE key_hash BETWEEN $first AND $last
)
SELECT topic, key, event_id, count(*) AS times
FROM identities GROUP BY topic, key_hash, key, event_id HAVING count(*) > 1
