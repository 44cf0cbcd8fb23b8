-- Their new ones come. `terms`: as the table; `chosen`: campaign_hash, campaign_id.
INSERT INTO campaign_terms BY NAME
SELECT t.* FROM terms t SEMI JOIN chosen c ON t.campaign_hash = c.campaign_hash AND t.campaign_id = c.campaign_id
