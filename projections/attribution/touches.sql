-- All touches, with their persons. Grain: one touch. Touches are all `touched` events; an issue that made a user the
-- owner of the coupon, for this user; and a claim by which a user got the coupon, for this user. Failed attempts do not
-- count.
WITH touched AS (
    SELECT acquired_by AS user_id, issued_at AS occurred_at, 'issued' AS kind, issue_channel AS channel, campaign_id
    FROM coupons
    WHERE acquired_by IS NOT NULL AND acquired_at = issued_at AND claimed_at IS DISTINCT FROM issued_at
    UNION ALL
    -- Issued and claimed at the same instant: the event tells which of the two set the owner.
    SELECT c.acquired_by, c.issued_at, 'issued', c.issue_channel, c.campaign_id
    FROM coupons c
    JOIN coupon_events e ON e.key_hash = c.key_hash AND e.coupon_id = c.coupon_id AND e.event_id = c.acquired_event_id
    WHERE c.acquired_by IS NOT NULL AND c.acquired_at = c.issued_at AND c.claimed_at = c.issued_at AND e.type = 'issued'
    UNION ALL
    SELECT owner, claimed_at, 'claimed', claim_channel, campaign_id
    FROM coupons WHERE owner IS NOT NULL AND claimed_at IS NOT NULL
    UNION ALL
    SELECT user_id, occurred_at, kind, channel, campaign_id
    FROM user_events WHERE type = 'touched'
)
SELECT t.user_id, coalesce(p.person, t.user_id) AS person, t.occurred_at, t.kind, t.channel, t.campaign_id
FROM touched t LEFT JOIN persons p ON p.user_id = t.user_id
