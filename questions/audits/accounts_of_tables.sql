-- Do the journals, conflicts and dead letters hold as many rows as the accounts say?
-- Grain: one partition and outcome. An offender: rows were lost, duplicated or added after they were counted.
WITH kept AS (
    SELECT 'coupon.events' AS topic, log_partition, 'applied' AS outcome, count(*) AS n FROM coupon_events GROUP BY ALL
    UNION ALL
    SELECT 'order.events', log_partition, 'applied', count(*) FROM order_events GROUP BY ALL
    UNION ALL
    SELECT 'campaign.events', log_partition, 'applied', count(*) FROM campaign_events GROUP BY ALL
    UNION ALL
    SELECT 'user.events', log_partition, 'applied', count(*) FROM user_events GROUP BY ALL
    UNION ALL
    SELECT 'coupon.events', log_partition, 'conflicts', count(*) FROM coupon_conflicts GROUP BY ALL
    UNION ALL
    SELECT 'order.events', log_partition, 'conflicts', count(*) FROM order_conflicts GROUP BY ALL
    UNION ALL
    SELECT 'campaign.events', log_partition, 'conflicts', count(*) FROM campaign_conflicts GROUP BY ALL
    UNION ALL
    SELECT 'user.events', log_partition, 'conflicts', count(*) FROM user_conflicts GROUP BY ALL
    UNION ALL
    SELECT topic, log_partition, 'dead_letters', count(*) FROM dead_letters GROUP BY ALL
),
accounted AS (
    UNPIVOT (SELECT topic, log_partition, applied, conflicts, dead_letters FROM checkpoints)
    ON applied, conflicts, dead_letters INTO NAME outcome VALUE n
)
SELECT topic, log_partition, outcome, coalesce(accounted.n, 0) AS account, coalesce(kept.n, 0) AS in_tables
FROM accounted FULL JOIN kept USING (topic, log_partition, outcome)
WHERE coalesce(accounted.n, 0) <> coalesce(kept.n, 0)
