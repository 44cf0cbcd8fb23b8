-- Which shares were planned for the arms? Grain: one arm that a `target_set` event with metric `share:ARM` names.
SELECT metric[7:] AS arm, arg_max(target, (occurred_at, event_id)) AS share_bp
FROM campaign_events
WHERE key_hash = $key_hash AND campaign_id = $campaign AND type = 'target_set' AND starts_with(metric, 'share:')
GROUP BY ALL
ORDER BY arm
