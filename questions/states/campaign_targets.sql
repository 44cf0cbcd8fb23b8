-- What was set for this campaign to reach? Grain: one metric and currency: the canonically last that was set. Names that
-- are no metric of ours stand here too (those of the industry begin with industry_).
SELECT metric, currency, target
FROM campaign_events
WHERE type = 'target_set' AND campaign_id = $campaign
QUALIFY row_number() OVER (PARTITION BY metric, currency ORDER BY occurred_at DESC, event_id DESC) = 1
ORDER BY metric, currency
