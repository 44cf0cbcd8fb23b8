-- The acquisitions in the time range of each move (`edges`, the result of cut_edges.sql). Grain: one acquisition and
-- one move. $since, $until: the earliest and the latest bound of all moves, so that DuckDB skips the rest of the table.
SELECT a.*, e.move
FROM acquisitions a JOIN edges e ON a.campaign_hash = e.campaign_hash AND a.campaign_id = e.campaign_id
WHERE a.acquired_at BETWEEN $since AND $until
  AND (e.since IS NULL OR a.acquired_at >= e.since) AND (e.until IS NULL OR a.acquired_at <= e.until)
