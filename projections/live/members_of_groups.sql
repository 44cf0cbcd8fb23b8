-- All acquisitions by the users in `chosen`, each in its campaign. Grain: one acquisition.
SELECT a.*
FROM acquisitions a
SEMI JOIN chosen c ON a.user_hash = c.user_hash AND a.campaign_hash = c.campaign_hash
                  AND a.campaign_id = c.campaign_id AND a.acquired_by = c.acquired_by
