-- How many customers came back after their first use of a coupon? Grain: one number of days and currency. `could`:
-- customers whose first coupon order is at least that many days before the data's clock (the others have not had the
-- time); `came`: those of them with another order within these days; `full_price`: those with such an order without any
-- discount.
WITH first AS (
    SELECT user_id, currency, min(paid_at) AS at_first FROM sold WHERE with_coupon GROUP BY ALL
),
next AS (
    SELECT f.user_id, f.currency, f.at_first, min(s.paid_at) AS at_next, min(s.paid_at) FILTER (s.full_price) AS at_full
    FROM first f LEFT JOIN sold s
        ON s.user_id = f.user_id AND s.currency IS NOT DISTINCT FROM f.currency AND s.paid_at > f.at_first
    GROUP BY ALL
),
windows AS (SELECT unnest([7, 30, 60, 90]) AS days),
counted AS (
    SELECT w.days, n.currency, count(*) AS could,
           count(*) FILTER (n.at_next <= n.at_first + to_days(w.days::INTEGER)) AS came,
           count(*) FILTER (n.at_full <= n.at_first + to_days(w.days::INTEGER)) AS full_price
    FROM windows w JOIN next n ON n.at_first + to_days(w.days::INTEGER) <= (SELECT data_clock FROM ledger)
    GROUP BY ALL
)
SELECT days, currency, could, came, round(came / could, 4) AS repurchase_rate, full_price,
       round(full_price / could, 4) AS full_price_rate
FROM counted ORDER BY days, currency
