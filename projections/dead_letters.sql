-- Which records were not folded and why, and who discarded them? Grain: one record, by position.
-- A parameter that is null matches all records. $settled: also return discarded records. $since (inclusive), $until
-- (exclusive): time of recording. $after_…: only records after this position.
SELECT d.rowid AS row_id, topic, log_partition AS partition, log_offset AS "offset", d.recorded_at, d.reason, d.detail,
       octet_length(d.value) AS bytes, d.key, d.value,
       s.occurred_at AS discarded_at, s.operator AS discarded_by, s.reason AS discarded_because
FROM dead_letters d LEFT JOIN discarded s USING (topic, log_partition, log_offset)
WHERE ($settled OR s.event_id IS NULL)
  AND ($topic IS NULL OR topic = $topic)
  AND ($partition IS NULL OR log_partition = $partition)
  AND ($offset IS NULL OR log_offset = $offset)
  AND ($reason IS NULL OR d.reason = $reason)
  AND ($since IS NULL OR d.recorded_at >= $since)
  AND ($until IS NULL OR d.recorded_at < $until)
  AND (topic, log_partition, log_offset) > ($after_topic, $after_partition, $after_offset)
ORDER BY topic, log_partition, log_offset
LIMIT coalesce($limit::BIGINT, 9223372036854775807)
