-- Which targets does this campaign have? Grain: one metric and currency, with the last target in canonical order. Names
-- that are not metrics of this ledger are included (industry figures begin with industry_).
SELECT metric, currency, target
FROM campaign_events
WHERE type = 'target_set' AND campaign_id = $campaign
QUALIFY row_number() OVER (PARTITION BY metric, currency ORDER BY occurred_at DESC, event_id DESC) = 1
ORDER BY metric, currency
