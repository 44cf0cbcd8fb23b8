-- Which record is behind this dead letter? Grain: one record, with key and value.
SELECT topic, log_partition AS partition, log_offset AS "offset", d.recorded_at, d.reason, detail, key, value,
       s.occurred_at AS discarded_at, s.operator AS discarded_by, s.reason AS discarded_because
FROM dead_letters d LEFT JOIN discarded s USING (topic, log_partition, log_offset)
WHERE topic = $topic AND log_partition = $log_partition AND log_offset = $log_offset
