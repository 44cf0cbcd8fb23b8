-- Which events of alerts were recorded at or after these offsets? Grain: one event of `coupon.alerts`.
SELECT type, alert_id, silence_id, rule, occurred_at, recorded_at, log_partition AS partition, log_offset AS "offset"
FROM alert_events e
JOIN (SELECT unnest($partitions::INTEGER[]) AS log_partition, unnest($offsets::BIGINT[]) AS since) USING (log_partition)
WHERE log_offset >= since
ORDER BY recorded_at, log_partition, log_offset
LIMIT $most
