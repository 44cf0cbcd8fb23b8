-- The whole record behind one dead letter. Grain: one record.
SELECT topic, log_partition AS partition, log_offset AS "offset", recorded_at, reason, detail, key, value
FROM dead_letters
WHERE topic = $topic AND log_partition = $log_partition AND log_offset = $log_offset
