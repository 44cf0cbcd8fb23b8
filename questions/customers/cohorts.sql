-- How many customers of each cohort came again, month by month? Grain: one cohort (the month of a customer's first
-- order that stands, or with $with_coupon of their first order with a coupon, in the time zone whose UTC offsets are in
-- `zone`) and number of months since. `customers`: size of the cohort; `came`: those of them with an order in that
-- month; `retention` = came / customers. Every month up to the data's clock has a row, even if nobody came; a month
-- without new customers has a single row of zeros. Months that are not over at the data's clock are `open`.
WITH clock AS (
    SELECT (l.data_clock + to_microseconds(z.offset_us))::DATE AS today
    FROM ledger l ASOF JOIN zone z ON l.data_clock >= z.since
),
monthly AS (
    SELECT s.user_id, s.with_coupon, date_trunc('month', s.paid_at + to_microseconds(z.offset_us))::DATE AS month
    FROM sold s ASOF JOIN zone z ON s.paid_at >= z.since
),
started AS (
    SELECT user_id, min(month) AS cohort FROM monthly WHERE with_coupon OR NOT $with_coupon GROUP BY ALL
),
sizes AS (SELECT cohort, count(*) AS customers FROM started GROUP BY ALL),
months AS (
    SELECT unnest(generate_series(min(cohort), (SELECT today FROM clock), INTERVAL 1 MONTH))::DATE AS month FROM started
),
came AS (
    SELECT s.cohort, m.month, count(DISTINCT m.user_id) AS came
    FROM started s JOIN monthly m ON m.user_id = s.user_id AND m.month >= s.cohort
    GROUP BY ALL
)
SELECT c.month AS cohort, coalesce(z.customers, 0) AS customers, date_diff('month', c.month, m.month) AS months_later,
       coalesce(a.came, 0) AS came, round(coalesce(a.came, 0) / z.customers, 4) AS retention,
       last_day(m.month) >= (SELECT today FROM clock) AS open
FROM months c
LEFT JOIN sizes z ON z.cohort = c.month
JOIN months m ON m.month = c.month OR (m.month > c.month AND z.customers > 0)
LEFT JOIN came a ON a.cohort = c.month AND a.month = m.month
ORDER BY cohort, months_later
