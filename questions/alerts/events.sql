-- What happened to alerts and silences? Grain: one event of `coupon.alerts`, as JSON, in the order of recording.
SELECT event FROM alert_events ORDER BY recorded_at, log_partition, log_offset
