-- Which costs other than the discount were booked on a campaign? Grain: one kind of cost and currency.
SELECT cost_kind, currency, sum(amount_minor) AS amount_minor, count(*) FILTER (amount_minor <= 0) AS not_positive
FROM campaign_events
WHERE key_hash = $key_hash AND campaign_id = $campaign AND type = 'cost_booked'
GROUP BY ALL
ORDER BY cost_kind, currency
