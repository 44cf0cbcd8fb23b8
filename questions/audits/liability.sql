-- Do the liability statements of outstanding coupons balance?
-- Grain: one campaign and currency. Outstanding coupons and their face value are computed in three ways: `counted`,
-- `counted_minor` from every move in the journal; `told`, `told_minor` as `report finance statement` reports them;
-- `stands`, `stands_minor` from the states of the rows. An offender: the reported liability is not that of the coupons
-- that people hold.
SELECT campaign_id, currency, count(*) AS stands, coalesce(sum(face_value_minor), 0) AS stands_minor
FROM coupons WHERE state IN ('issued', 'claimed', 'reserved')
GROUP BY ALL
