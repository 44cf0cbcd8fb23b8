-- Which record of each partition is the last one in journals, conflicts and dead letters? Grain: one partition. For
-- databases that do not store the last records. `recorded_at`: µs since the epoch. `event_id`: the id of the event in
-- the record; null for a dead letter.
WITH placed AS (
    SELECT 'coupon.events' AS topic, log_partition, log_offset, recorded_at, event_id FROM coupon_events
    UNION ALL SELECT 'order.events', log_partition, log_offset, recorded_at, event_id FROM order_events
    UNION ALL SELECT 'campaign.events', log_partition, log_offset, recorded_at, event_id FROM campaign_events
    UNION ALL SELECT 'user.events', log_partition, log_offset, recorded_at, event_id FROM user_events
    UNION ALL SELECT 'coupon.events', log_partition, log_offset, recorded_at, event_id FROM coupon_conflicts
    UNION ALL SELECT 'order.events', log_partition, log_offset, recorded_at, event_id FROM order_conflicts
    UNION ALL SELECT 'campaign.events', log_partition, log_offset, recorded_at, event_id FROM campaign_conflicts
    UNION ALL SELECT 'user.events', log_partition, log_offset, recorded_at, event_id FROM user_conflicts
    UNION ALL SELECT topic, log_partition, log_offset, recorded_at, NULL FROM dead_letters
),
last AS (
    SELECT topic, log_partition, max(log_offset) AS log_offset FROM placed GROUP BY topic, log_partition
)
SELECT topic, log_partition, log_offset, epoch_us(any_value(recorded_at)) AS recorded_at, any_value(event_id) AS event_id
FROM placed JOIN last USING (topic, log_partition, log_offset)
GROUP BY topic, log_partition, log_offset
