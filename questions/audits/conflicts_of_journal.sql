-- Has every content in conflict a violation, and the event that stands instead of it an earlier position?
-- Grain: one identity (topic, key, event_id) with contents in conflict. An offender: a conflict that nobody is told of, or
-- another content stands than that of the first position.
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
told AS (
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
FROM counted FULL JOIN told USING (topic, key_hash, key, event_id)
WHERE NOT coalesce(later, false) OR contents IS DISTINCT FROM violations
