-- Is every conflicting content different from the fact, and kept once?
-- Grain: one content. An offender: a repeat that was taken for a conflict.
SELECT 'coupon.events' AS topic, content.coupon_id AS key, content.event_id AS event_id, n AS times
FROM (
    SELECT c AS content, count(*) AS n
    FROM (SELECT * EXCLUDE (recorded_at, log_partition, log_offset) FROM coupon_conflicts
          UNION ALL
          SELECT * EXCLUDE (recorded_at, log_partition, log_offset)
          FROM coupon_events SEMI JOIN coupon_conflicts USING (key_hash, coupon_id, event_id)) c
    GROUP BY c
)
WHERE n > 1
UNION ALL
SELECT 'order.events', content.order_id, content.event_id, n
FROM (
    SELECT c AS content, count(*) AS n
    FROM (SELECT * EXCLUDE (recorded_at, log_partition, log_offset) FROM order_conflicts
          UNION ALL
          SELECT * EXCLUDE (recorded_at, log_partition, log_offset)
          FROM order_events SEMI JOIN order_conflicts USING (key_hash, order_id, event_id)) c
    GROUP BY c
)
WHERE n > 1
UNION ALL
SELECT 'campaign.events', content.campaign_id, content.event_id, n
FROM (
    SELECT c AS content, count(*) AS n
    FROM (SELECT * EXCLUDE (recorded_at, log_partition, log_offset) FROM campaign_conflicts
          UNION ALL
          SELECT * EXCLUDE (recorded_at, log_partition, log_offset)
          FROM campaign_events SEMI JOIN campaign_conflicts USING (key_hash, campaign_id, event_id)) c
    GROUP BY c
)
WHERE n > 1
UNION ALL
SELECT 'user.events', content.user_id, content.event_id, n
FROM (
    SELECT c AS content, count(*) AS n
    FROM (SELECT * EXCLUDE (recorded_at, log_partition, log_offset) FROM user_conflicts
          UNION ALL
          SELECT * EXCLUDE (recorded_at, log_partition, log_offset)
          FROM user_events SEMI JOIN user_conflicts USING (key_hash, user_id, event_id)) c
    GROUP BY c
)
WHERE n > 1
