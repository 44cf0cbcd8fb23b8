-- How many coupons has somebody acquired in each campaign that events say anything of? Grain: one campaign.
SELECT e.campaign_id, count(a.coupon_id) AS acquisitions
FROM (SELECT DISTINCT campaign_id FROM campaign_events) e
LEFT JOIN (SELECT campaign_id, coupon_id FROM acquisitions) a ON a.campaign_id = e.campaign_id
GROUP BY e.campaign_id ORDER BY e.campaign_id
