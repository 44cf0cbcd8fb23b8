-- Does every quantity that a campaign has or had have a cut after that many acquisitions?
-- Grain: one campaign and quantity. A cut is the first acquisition beyond the quantity, null if there is none.
-- An offender: coupons above the stock are missed, or the wrong ones are marked.
WITH wanted AS (
    SELECT DISTINCT campaign_hash, campaign_id, quantity FROM campaign_terms WHERE quantity IS NOT NULL
),
counted AS (
    SELECT c.campaign_hash, c.campaign_id, c.quantity, c.before, c.acquired_at, count(a.coupon_id) AS acquired,
           count(a.coupon_id) FILTER (
               c.acquired_at IS NULL
               OR (a.acquired_at, a.acquired_event_id, a.coupon_id) < (c.acquired_at, c.acquired_event_id, c.coupon_id)
           ) AS stand_before
    FROM stock_cuts c LEFT JOIN acquisitions a ON a.campaign_hash = c.campaign_hash AND a.campaign_id = c.campaign_id
    GROUP BY c.rowid, c.campaign_hash, c.campaign_id, c.quantity, c.before, c.acquired_at
),
twice AS (
    SELECT campaign_hash, campaign_id, quantity FROM stock_cuts GROUP BY ALL HAVING count(*) > 1
)
SELECT campaign_id, quantity, before, stand_before, acquired, acquired_at
FROM wanted w FULL JOIN counted c USING (campaign_hash, campaign_id, quantity)
WHERE w.quantity IS NULL OR c.quantity IS NULL OR c.before IS DISTINCT FROM c.stand_before
   OR CASE WHEN c.acquired_at IS NULL THEN c.acquired > quantity ELSE c.before <> quantity END
   OR (campaign_hash, campaign_id, quantity) IN (SELECT (campaign_hash, campaign_id, quantity) FROM twice)
