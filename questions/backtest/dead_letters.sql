-- When was each dead letter recorded, and when discarded? Grain: one dead letter. `discarded_at`: null if it was not.
SELECT d.topic, d.reason, d.recorded_at, min(x.occurred_at) AS discarded_at
FROM dead_letters d LEFT JOIN discarded x USING (topic, log_partition, log_offset)
GROUP BY d.topic, d.reason, d.recorded_at, d.log_partition, d.log_offset
