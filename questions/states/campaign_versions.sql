-- Which events set the rules of this campaign? Grain: one event that creates a rule version, in canonical order.
SELECT * EXCLUDE (key_hash, recorded_at, log_partition, log_offset, campaign_id)
FROM campaign_events
WHERE key_hash = $key_hash AND campaign_id = $campaign AND type IN (SELECT unnest($types::VARCHAR[]))
ORDER BY occurred_at, list_position($types::VARCHAR[], type), encode(event_id)
