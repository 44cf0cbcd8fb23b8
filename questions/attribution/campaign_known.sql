-- Does any event, coupon or touch name this campaign? Grain: the campaign.
SELECT EXISTS (FROM campaign_events WHERE campaign_id = $campaign)
    OR EXISTS (FROM coupons WHERE campaign_id = $campaign)
    OR EXISTS (FROM touch_sources WHERE campaign_id = $campaign) AS known
