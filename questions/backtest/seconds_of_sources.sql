-- In which seconds did each source publish? Grain: one source, topic and second since the epoch, in this order.
SELECT DISTINCT topic, source, second
FROM (
    SELECT 'coupon.events' AS topic, source, epoch_us(recorded_at) // 1000000 AS second FROM coupon_events
    UNION ALL SELECT 'order.events', source, epoch_us(recorded_at) // 1000000 FROM order_events
    UNION ALL SELECT 'campaign.events', source, epoch_us(recorded_at) // 1000000 FROM campaign_events
    UNION ALL SELECT 'user.events', source, epoch_us(recorded_at) // 1000000 FROM user_events
)
ORDER BY topic, source, second
