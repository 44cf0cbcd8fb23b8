-- What does the database contain, and how far was each partition read? Grain: the database. `violations`: those that
-- count (see violation_counts.sql).
WITH broken AS (
    SELECT count(*) FILTER (NOT superseded(event_id, violation) AND NOT explained AND NOT provisional) AS violations,
           count(*) FILTER (superseded(event_id, violation)) AS superseded, count(*) FILTER (explained) AS explained,
           count(*) FILTER (provisional) AS provisional
    FROM judged_violations
)
SELECT (SELECT count(*) FROM coupons) AS coupons, (SELECT count(*) FROM orders) AS orders,
       (SELECT count(*) FROM campaigns) AS campaigns, (SELECT count(*) FROM users) AS users,
       (SELECT violations FROM broken) AS violations, (SELECT superseded FROM broken) AS superseded,
       (SELECT explained FROM broken) AS explained, (SELECT provisional FROM broken) AS provisional,
       (SELECT count(*) FROM dead_letters) AS dead_letters, (SELECT count(*) FROM outbox) AS outbox,
       coalesce(sum(read), 0)::BIGINT AS read, coalesce(sum(applied), 0)::BIGINT AS applied,
       coalesce(sum(repeats), 0)::BIGINT AS repeats, coalesce(sum(conflicts), 0)::BIGINT AS conflicts,
       any_value(data_clock) AS data_clock, any_value(commits) AS commits, any_value(committed_at) AS committed_at,
       any_value(batch_records) AS batch_records, any_value(batch_seconds) AS batch_seconds,
       coalesce(list({topic: topic, partition: log_partition, next_offset: next_offset, read: read, applied: applied,
                      repeats: repeats, conflicts: conflicts, dead_letters: checkpoints.dead_letters}
                     ORDER BY topic, log_partition) FILTER (topic IS NOT NULL), []) AS partitions
FROM ledger LEFT JOIN checkpoints ON true
