-- How many customers of each month came again, month by month? Grain: one cohort (the month, in the zone whose offsets
-- stand in `zone`, of a customer's first order that stands; $with_coupon: of the first one with a coupon) and the months
-- since. `customers`: of the cohort; `came`: of them, those with an order in that month; `retention` = came / customers.
-- Months that are not over at the data's clock are `open`.
WITH monthly AS (
    SELECT s.user_id, s.with_coupon, date_trunc('month', s.paid_at + to_microseconds(z.offset_us)) AS month
    FROM sold s ASOF JOIN zone z ON s.paid_at >= z.since
),
started AS (
    SELECT user_id, min(month) AS cohort FROM monthly WHERE with_coupon OR NOT $with_coupon GROUP BY ALL
),
sizes AS (SELECT cohort, count(*) AS customers FROM started GROUP BY ALL),
months AS (SELECT DISTINCT user_id, month FROM monthly),
came AS (
    SELECT s.cohort, m.month, count(*) AS came
    FROM started s JOIN months m ON m.user_id = s.user_id AND m.month >= s.cohort
    GROUP BY ALL
)
SELECT c.cohort::DATE AS cohort, z.customers, date_diff('month', c.cohort, c.month) AS months_later, c.came,
       round(c.came / z.customers, 4) AS retention,
       last_day(c.month::DATE) >= (
           SELECT (l.data_clock + to_microseconds(z.offset_us))::DATE FROM ledger l ASOF JOIN zone z ON l.data_clock >= z.since
       ) AS open
FROM came c JOIN sizes z ON z.cohort = c.cohort
ORDER BY c.cohort, months_later
