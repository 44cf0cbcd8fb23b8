-- What is the state of this campaign? Grain: one campaign; its values are null if only coupons name it. `entered`:
-- number of its coupons that were claimed or granted to a user (each counts once); stock_left = quantity - entered
-- (negative: more were issued than exist). `discounts`: discount of its coupons in use, by currency (of the order, else
-- of the coupon); `discount_minor`: the same if there is only one currency, else null. Claims are counted in the minute
-- in which they happened; the last hour is the hour before the data's clock.
WITH mine AS MATERIALIZED (
    SELECT state, owner, claimed_at FROM coupons WHERE campaign_id = $campaign
),
taken AS (
    SELECT coalesce(list({currency: currency, discount_minor: discount_minor} ORDER BY currency), []) AS discounts,
           CASE count(*) WHEN 0 THEN 0 WHEN 1 THEN any_value(discount_minor) END AS discount_minor
    FROM (SELECT coalesce(currency, coupon_currency) AS currency, sum(discount_minor) AS discount_minor
          FROM coupon_sales WHERE campaign_id = $campaign GROUP BY ALL)
),
minutes AS (
    SELECT date_trunc('minute', claimed_at) AS minute, count(*) AS claims FROM mine
    WHERE claimed_at IS NOT NULL GROUP BY ALL
),
peak AS (
    SELECT minute, claims FROM minutes ORDER BY claims DESC, minute LIMIT 1
)
SELECT $campaign AS campaign_id, c.name, c.status, c.rule_version, c.rule_id, c.mechanic, c.visibility, c.quantity,
       c.per_user_limit, c.claim_from, c.claim_until, c.coupon_type, c.face_value_minor, c.percent_off_bp,
       c.min_spend_minor, c.currency, c.applies_to, c.exclusion_group, c.priority, c.platform_or_store,
       c.budget_minor, c.channel, c.funded_by, c.last_event_at,
       (SELECT count(*) FROM mine) AS coupons,
       (SELECT count(*) FROM mine WHERE owner IS NOT NULL) AS entered,
       c.quantity - (SELECT count(*) FROM mine WHERE owner IS NOT NULL) AS stock_left,
       (SELECT claims FROM peak) AS peak_claims_per_minute, (SELECT minute FROM peak) AS peak_at,
       round((SELECT count(*) FROM mine
              WHERE claimed_at > (SELECT data_clock FROM ledger) - INTERVAL 1 HOUR
                AND claimed_at <= (SELECT data_clock FROM ledger)) / 60, 4) AS last_hour_claims_per_minute,
       (SELECT discount_minor FROM taken) AS discount_minor, (SELECT discounts FROM taken) AS discounts,
       c.campaign_id IS NOT NULL AS known
FROM (SELECT 1) LEFT JOIN campaigns c ON c.key_hash = $key_hash AND c.campaign_id = $campaign
