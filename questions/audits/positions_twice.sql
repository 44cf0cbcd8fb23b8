-- Did every record become one thing: an event, a conflict or a dead letter?
-- Grain: one position. An offender: the record is kept more than once.
WITH positions AS (
    SELECT 'coupon.events' AS topic, 'coupon_events' AS kept_in, log_partition, log_offset FROM coupon_events WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT 'order.events', 'order_events', log_partition, log_offset FROM order_events WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT 'campaign.events', 'campaign_events', log_partition, log_offset FROM campaign_events WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT 'user.events', 'user_events', log_partition, log_offset FROM user_events WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT 'coupon.events', 'coupon_conflicts', log_partition, log_offset FROM coupon_conflicts WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT 'order.events', 'order_conflicts', log_partition, log_offset FROM order_conflicts WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT 'campaign.events', 'campaign_conflicts', log_partition, log_offset FROM campaign_conflicts WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT 'user.events', 'user_conflicts', log_partition, log_offset FROM user_conflicts WHERE log_offset BETWEEN $first_offset AND $last_offset
    UNION ALL
    SELECT topic, 'dead_letters', log_partition, log_offset FROM dead_letters WHERE log_offset BETWEEN $first_offset AND $last_offset
)
SELECT topic, log_partition, log_offset, list(kept_in) AS kept_in
FROM positions GROUP BY topic, log_partition, log_offset HAVING count(*) > 1
