-- All acquisitions in the campaigns in `chosen`. Grain: one acquisition.
SELECT a.* FROM acquisitions a SEMI JOIN chosen c ON a.campaign_hash = c.campaign_hash AND a.campaign_id = c.campaign_id
