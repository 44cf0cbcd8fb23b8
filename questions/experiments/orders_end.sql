-- Until when are orders known? Grain: one row.
SELECT (SELECT data_clock FROM ledger) AS data_clock, (SELECT max(paid_at) FROM orders) AS last_order_at
