-- In which time range are the acquisitions that a moving cut passes (campaign_rules.py)? Grain: one move, a row of
-- `moves`. A move shifts the cut at `cut_at` (null: after all acquisitions) by `places` acquisitions of its campaign,
-- backward or forward. The range from `since` to `until` (both inclusive; null: no bound) contains all acquisitions
-- that the cut passes, and for a forward move also the one before which it ends. Of the table, reads only narrow
-- columns.
WITH reach AS (
    SELECT m.move,
           max(a.acquired_at, m.places) FILTER (m.backward) AS earlier,
           min(a.acquired_at, m.places + 1) FILTER (NOT m.backward) AS later
    FROM acquisitions a JOIN moves m ON a.campaign_hash = m.campaign_hash AND a.campaign_id = m.campaign_id
    WHERE m.cut_at IS NULL OR (m.backward AND a.acquired_at < m.cut_at) OR (NOT m.backward AND a.acquired_at > m.cut_at)
    GROUP BY m.move
)
SELECT m.move, m.campaign_hash, m.campaign_id,
       CASE WHEN NOT m.backward THEN m.cut_at WHEN len(r.earlier) = m.places THEN r.earlier[m.places] END AS since,
       CASE WHEN m.backward THEN m.cut_at WHEN len(r.later) = m.places + 1 THEN r.later[m.places + 1] END AS until
FROM moves m LEFT JOIN reach r ON r.move = m.move
