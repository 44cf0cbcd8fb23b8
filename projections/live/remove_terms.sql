-- Some campaigns' terms go. `chosen`: campaign_hash, campaign_id.
DELETE FROM campaign_terms t USING chosen c WHERE t.campaign_hash = c.campaign_hash AND t.campaign_id = c.campaign_id
