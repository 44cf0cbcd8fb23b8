-- Which records recorded after $since and not after $until are dead letters that nobody has discarded? Grain: one topic
-- and reason.
SELECT d.topic, d.reason, count(*) AS letters, min(d.recorded_at) AS first_at, max(d.recorded_at) AS last_at,
       min(d.detail) AS detail
FROM dead_letters d ANTI JOIN discarded x USING (topic, log_partition, log_offset)
WHERE d.recorded_at > $since AND d.recorded_at <= $until
GROUP BY ALL
ORDER BY topic, reason
