-- Is every acquired coupon counted once in its campaign, as its row says?
-- Grain: one acquisition, missing or superfluous. An offender: coupons are ranked wrongly within the campaign.
WITH wanted AS (
    SELECT key_hash, coupon_id, campaign_id, acquired_by, acquired_at, acquired_event_id
    FROM coupons
    WHERE key_hash BETWEEN $first AND $last AND campaign_id IS NOT NULL AND acquired_at IS NOT NULL
),
kept AS (
    SELECT key_hash, coupon_id, campaign_id, acquired_by, acquired_at, acquired_event_id
    FROM acquisitions WHERE key_hash BETWEEN $first AND $last
)
SELECT 'missing' AS fault, * FROM (FROM wanted EXCEPT ALL FROM kept)
UNION ALL
SELECT 'superfluous', * FROM (FROM kept EXCEPT ALL FROM wanted)
