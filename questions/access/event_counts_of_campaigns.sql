-- The counted events of visible coupons, if the scope is campaigns only: the counts have the coupon's campaign.
SELECT * FROM live.event_counts WHERE campaign_in_scope(campaign_id)
