-- Which records were not folded, and why? Grain: one record, by position.
SELECT topic, log_partition AS partition, log_offset AS "offset", recorded_at, reason, detail,
       octet_length(value) AS bytes
FROM dead_letters
ORDER BY topic, log_partition, log_offset
LIMIT coalesce($limit::BIGINT, 9223372036854775807)
