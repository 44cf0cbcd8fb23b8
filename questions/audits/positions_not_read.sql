-- Does every kept position lie before the next offset of its partition?
-- Grain: one position in a table. An offender: the row of a record that, by the checkpoints, was not read yet. Either
-- it will be read again and count as a repeat, or it comes from another log.
WITH positions AS (
    SELECT 'coupon.events' AS topic, 'coupon_events' AS kept_in, log_partition, log_offset FROM coupon_events
    UNION ALL
    SELECT 'order.events', 'order_events', log_partition, log_offset FROM order_events
    UNION ALL
    SELECT 'campaign.events', 'campaign_events', log_partition, log_offset FROM campaign_events
    UNION ALL
    SELECT 'user.events', 'user_events', log_partition, log_offset FROM user_events
    UNION ALL
    SELECT 'coupon.events', 'coupon_conflicts', log_partition, log_offset FROM coupon_conflicts
    UNION ALL
    SELECT 'order.events', 'order_conflicts', log_partition, log_offset FROM order_conflicts
    UNION ALL
    SELECT 'campaign.events', 'campaign_conflicts', log_partition, log_offset FROM campaign_conflicts
    UNION ALL
    SELECT 'user.events', 'user_conflicts', log_partition, log_offset FROM user_conflicts
    UNION ALL
    SELECT topic, 'dead_letters', log_partition, log_offset FROM dead_letters
)
SELECT topic, kept_in, log_partition, log_offset, c.next_offset
FROM positions LEFT JOIN checkpoints c USING (topic, log_partition)
WHERE log_offset >= coalesce(c.next_offset, 0) OR log_offset < 0
