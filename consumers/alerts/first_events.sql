-- Which events stand behind an alert? Grain: one event, the first `n` in the order of recording. `events_behind`: all.
SELECT event_id, type, occurred_at, coupon_id, user_id, order_id, log_partition, log_offset
FROM events_behind ORDER BY recorded_at, log_partition, log_offset LIMIT $n
