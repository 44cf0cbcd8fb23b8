-- How far was the log read? Grain: one partition, in no order (asked with every question, and this is the quickest).
SELECT topic, log_partition, next_offset FROM checkpoints
