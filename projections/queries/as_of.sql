-- Of which state is an answer? Grain: the database.
SELECT commits, committed_at, data_clock,
       (SELECT list({topic: topic, partition: log_partition, next_offset: next_offset} ORDER BY topic, log_partition)
        FROM checkpoints) AS positions
FROM ledger
