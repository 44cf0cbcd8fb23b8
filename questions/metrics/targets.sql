-- Which targets are set? Grain: one campaign, metric and currency, with the last target in canonical order.
SELECT campaign_id AS campaign, metric, currency, target::DOUBLE AS target
FROM campaign_events
WHERE type = 'target_set' AND metric IN (SELECT unnest($metrics))
  AND ($campaigns IS NULL OR campaign_id IN (SELECT unnest($campaigns)))
QUALIFY row_number() OVER (PARTITION BY campaign_id, metric, currency ORDER BY occurred_at DESC, event_id DESC) = 1
