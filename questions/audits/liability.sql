-- Do the statements of the coupons that are out balance?
-- Grain: one campaign and currency; `counted`, `counted_minor`: coupons that are out, and their face value, by every
-- move in and out of their journals, `told`, `told_minor`: as `report finance statement` says, `stands`, `stands_minor`: by
-- the states of the rows. An offender: finance would be told of a liability that is not the one of the coupons that people
-- hold.
SELECT campaign_id, currency, count(*) AS stands, coalesce(sum(face_value_minor), 0) AS stands_minor
FROM coupons WHERE state IN ('issued', 'claimed', 'reserved')
GROUP BY ALL
