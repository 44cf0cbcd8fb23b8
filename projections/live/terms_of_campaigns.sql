-- The stored terms of some campaigns (`touched`). Grain: as the table.
SELECT t.* FROM campaign_terms t SEMI JOIN touched c ON t.campaign_hash = c.campaign_hash AND t.campaign_id = c.campaign_id
