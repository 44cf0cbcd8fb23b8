-- Does every conflicting content have a violation, and a later position than the fact?
-- Grain: one identity (topic, key, event_id) with conflicting contents. An offender: a conflict without a violation, or
-- a fact that is not the content at the first position.
WITH conflicts AS (
    SELECT 'coupon.events' AS topic, key_hash, coupon_id AS key, event_id, recorded_at, log_partition, log_offset
    FROM coupon_conflicts WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'order.events', key_hash, order_id, event_id, recorded_at, log_partition, log_offset
    FROM order_conflicts WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaign.events', key_hash, campaign_id, event_id, recorded_at, log_partition, log_offset
    FROM campaign_conflicts WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'user.events', key_hash, user_id, event_id, recorded_at, log_partition, log_offset
    FROM user_conflicts WHERE key_hash BETWEEN $first AND $last
),
standing AS (
    SELECT 'coupon.events' AS topic, key_hash, coupon_id AS key, event_id, recorded_at, log_partition, log_offset
    FROM coupon_events SEMI JOIN coupon_conflicts USING (key_hash, coupon_id, event_id) WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'order.events', key_hash, order_id, event_id, recorded_at, log_partition, log_offset
    FROM order_events SEMI JOIN order_conflicts USING (key_hash, order_id, event_id) WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaign.events', key_hash, campaign_id, event_id, recorded_at, log_partition, log_offset
    FROM campaign_events SEMI JOIN campaign_conflicts USING (key_hash, campaign_id, event_id) WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'user.events', key_hash, user_id, event_id, recorded_at, log_partition, log_offset
    FROM user_events SEMI JOIN user_conflicts USING (key_hash, user_id, event_id) WHERE key_hash BETWEEN $first AND $last
),
reported AS (
    SELECT topic, key_hash, key, event_id, count(*) AS violations
    FROM violations WHERE violation = 'conflicting_duplicate' AND key_hash BETWEEN $first AND $last GROUP BY ALL
),
counted AS (
    SELECT c.topic, c.key_hash, c.key, c.event_id, count(*) AS contents,
           bool_and(coalesce((s.recorded_at, s.log_partition, s.log_offset)
                             < (c.recorded_at, c.log_partition, c.log_offset), false)) AS later
    FROM conflicts c LEFT JOIN standing s USING (topic, key_hash, key, event_id) GROUP BY ALL
)
SELECT topic, key, event_id, coalesce(contents, 0) AS contents, coalesce(violations, 0) AS violations, later
FROM counted FULL JOIN reported USING (topic, key_hash, key, event_id)
WHERE NOT coalesce(later, false) OR contents IS DISTINCT FROM violations
