-- How many dead letters were discarded? Grain: the database.
SELECT count(*) AS settled FROM dead_letters SEMI JOIN discarded USING (topic, log_partition, log_offset)
