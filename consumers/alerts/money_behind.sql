-- How much money is at stake in the coupons behind an alert? Grain: one currency, the one with most coupons first.
-- `money_minor`: the discounts of the coupons; of a coupon without a discount, its face value.
SELECT sum(coalesce(discount_minor, face_value_minor))::HUGEINT AS money_minor, currency
FROM coupons
WHERE key_hash IN (SELECT key_hash FROM events_behind) AND coupon_id IN (SELECT coupon_id FROM events_behind)
  AND coalesce(discount_minor, face_value_minor) IS NOT NULL AND currency IS NOT NULL
GROUP BY currency ORDER BY count(*) DESC, currency
