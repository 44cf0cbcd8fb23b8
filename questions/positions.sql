-- How far was the log read? Grain: one partition. Unordered for speed, because every question runs it.
SELECT topic, log_partition, next_offset FROM checkpoints
