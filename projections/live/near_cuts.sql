-- The acquisitions between the edges of a move. Grain: one acquisition and one move (of `edges`). $since, $until: the
-- outermost edges, so that the rest of the table is skipped.
SELECT a.*, e.move
FROM acquisitions a JOIN edges e ON a.campaign_hash = e.campaign_hash AND a.campaign_id = e.campaign_id
WHERE a.acquired_at BETWEEN $since AND $until
  AND (e.since IS NULL OR a.acquired_at >= e.since) AND (e.until IS NULL OR a.acquired_at <= e.until)
