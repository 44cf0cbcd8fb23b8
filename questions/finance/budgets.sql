-- How much of each campaign's budget is spent, and when will it be exhausted? Grain: one campaign and currency in which
-- it spends, has a budget or has coupons out. Spent: the sum of the input `spending` (spending.sql). The spending rate
-- is the mean of the $days days before the data's clock. `exhausted_at`: when the rest of the budget is spent at that
-- rate (null: it is spent already, the rate is zero, or that is a century away). A budget is in the currency of the
-- campaign's terms; if they name none, the rest is unknown (null). `coupons_out`: coupons that can still be used;
-- `liability_minor`: the face value of those that have one (null: none has); `without_value`: the number of the others.
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
    SELECT campaign_id, currency, sum(face_value_minor) AS liability_minor, count(*) AS coupons,
           count(*) FILTER (face_value_minor IS NULL) AS without_value
    FROM coupons
    WHERE state IN ('issued', 'claimed', 'reserved') AND campaign_id IS NOT NULL
      AND ($campaign IS NULL OR campaign_id = $campaign)
      AND (valid_until IS NULL OR valid_until >= (SELECT now FROM clock))
    GROUP BY ALL
),
planned AS (
    SELECT campaign_id, currency, budget_minor FROM campaigns
    WHERE budget_minor IS NOT NULL AND ($campaign IS NULL OR campaign_id = $campaign)
),
known AS (
    SELECT campaign_id, currency FROM spent UNION SELECT campaign_id, currency FROM planned
    UNION SELECT campaign_id, currency FROM owed
)
SELECT k.campaign_id, k.currency, p.budget_minor, coalesce(s.discount_minor, 0) AS discount_minor,
       coalesce(s.acquisition_minor, 0) AS acquisition_minor, coalesce(s.media_minor, 0) AS media_minor,
       coalesce(s.operation_minor, 0) AS operation_minor, coalesce(s.subsidy_minor, 0) AS subsidy_minor,
       coalesce(s.spent_minor, 0) AS spent_minor,
       CASE WHEN k.currency IS NOT NULL THEN p.budget_minor - coalesce(s.spent_minor, 0) END AS left_minor,
       CASE WHEN k.currency IS NOT NULL THEN round(coalesce(s.spent_minor, 0) / nullif(p.budget_minor, 0), 4) END AS burned,
       round(coalesce(s.per_day, 0))::HUGEINT AS per_day_minor,
       CASE WHEN k.currency IS NOT NULL AND s.spent_minor < p.budget_minor AND s.per_day > 0 AND (p.budget_minor - s.spent_minor) / s.per_day < 36500
            THEN (SELECT now FROM clock) + to_microseconds(((p.budget_minor - s.spent_minor) / s.per_day * 86400e6)::BIGINT)
       END AS exhausted_at,
       coalesce(o.coupons, 0) AS coupons_out, coalesce(o.without_value, 0) AS without_value,
       CASE WHEN o.coupons IS NULL THEN 0 ELSE o.liability_minor END AS liability_minor
FROM known k
LEFT JOIN spent s ON s.campaign_id = k.campaign_id AND s.currency IS NOT DISTINCT FROM k.currency
LEFT JOIN planned p ON p.campaign_id = k.campaign_id AND p.currency IS NOT DISTINCT FROM k.currency
LEFT JOIN owed o ON o.campaign_id = k.campaign_id AND o.currency IS NOT DISTINCT FROM k.currency
ORDER BY length(k.campaign_id), k.campaign_id, k.currency
