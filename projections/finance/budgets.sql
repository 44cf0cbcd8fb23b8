-- What of each campaign's budget is gone, and when will it be? Grain: one campaign and currency in which it spends or
-- has a budget. spent = `spending` (given: spending.sql). The rate is
-- that of the last $days days of the data's clock; `exhausted_at`: when what is left goes at that rate (null: it is gone, or
-- nothing goes); `liability_minor`:
-- face value of coupons that are out and can still be used. A budget is in the currency of the campaign's terms: a cost
-- booked in another one does not move it.
WITH clock AS (
    SELECT data_clock AS now, data_clock - INTERVAL 1 DAY * $days AS since FROM ledger
),
spent AS (
    SELECT campaign_id, currency, sum(amount_minor) FILTER (kind = 'discount') AS discount_minor,
           sum(amount_minor) FILTER (kind = 'acquisition') AS acquisition_minor,
           sum(amount_minor) FILTER (kind = 'media') AS media_minor,
           sum(amount_minor) FILTER (kind = 'operation') AS operation_minor,
           sum(amount_minor) FILTER (kind = 'subsidy') AS subsidy_minor,
           sum(amount_minor) AS spent_minor,
           sum(amount_minor) FILTER (spent_at > (SELECT since FROM clock) AND spent_at <= (SELECT now FROM clock)) / $days AS per_day
    FROM spending GROUP BY ALL
),
owed AS (
    SELECT campaign_id, currency, sum(face_value_minor) AS liability_minor
    FROM coupons
    WHERE state IN ('issued', 'claimed', 'reserved') AND campaign_id IS NOT NULL
      AND ($campaign IS NULL OR campaign_id = $campaign)
      AND (valid_until IS NULL OR valid_until >= (SELECT now FROM clock))
    GROUP BY ALL
),
terms AS (
    SELECT campaign_id, arg_max(currency, (occurred_at, event_id)) AS currency FROM campaign_events
    WHERE type IN ('drafted', 'published', 'unpublished', 'amended') AND currency IS NOT NULL GROUP BY campaign_id
),
planned AS (
    SELECT c.campaign_id, coalesce(t.currency, c.currency) AS currency, c.budget_minor
    FROM campaigns c LEFT JOIN terms t ON t.campaign_id = c.campaign_id
    WHERE c.budget_minor IS NOT NULL AND ($campaign IS NULL OR c.campaign_id = $campaign)
),
known AS (
    SELECT campaign_id, currency FROM spent UNION SELECT campaign_id, currency FROM planned
    UNION SELECT campaign_id, currency FROM owed WHERE liability_minor > 0
)
SELECT k.campaign_id, k.currency, p.budget_minor, coalesce(s.discount_minor, 0)::BIGINT AS discount_minor,
       coalesce(s.acquisition_minor, 0)::BIGINT AS acquisition_minor, coalesce(s.media_minor, 0)::BIGINT AS media_minor,
       coalesce(s.operation_minor, 0)::BIGINT AS operation_minor, coalesce(s.subsidy_minor, 0)::BIGINT AS subsidy_minor,
       coalesce(s.spent_minor, 0)::BIGINT AS spent_minor, (p.budget_minor - coalesce(s.spent_minor, 0))::BIGINT AS left_minor,
       round(coalesce(s.spent_minor, 0) / nullif(p.budget_minor, 0), 4) AS burned,
       round(coalesce(s.per_day, 0))::BIGINT AS per_day_minor,
       CASE WHEN s.spent_minor < p.budget_minor AND s.per_day > 0 AND (p.budget_minor - s.spent_minor) / s.per_day < 36500
            THEN (SELECT now FROM clock) + to_microseconds(((p.budget_minor - s.spent_minor) / s.per_day * 86400e6)::BIGINT)
       END AS exhausted_at,
       coalesce(o.liability_minor, 0)::BIGINT AS liability_minor
FROM known k
LEFT JOIN spent s ON s.campaign_id = k.campaign_id AND s.currency IS NOT DISTINCT FROM k.currency
LEFT JOIN planned p ON p.campaign_id = k.campaign_id AND p.currency IS NOT DISTINCT FROM k.currency
LEFT JOIN owed o ON o.campaign_id = k.campaign_id AND o.currency IS NOT DISTINCT FROM k.currency
ORDER BY length(k.campaign_id), k.campaign_id, k.currency
