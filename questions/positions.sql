-- How far was the log read? Grain: one partition. Unordered, which is fastest: every question asks this.
SELECT topic, log_partition, next_offset FROM checkpoints
