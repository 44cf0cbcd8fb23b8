-- Which dead letters of a topic are valid events: folding them failed, or `occurred_at` is too far from `recorded_at`?
-- No rows unless $wanted. One row per record.
SELECT log_partition, log_offset
FROM dead_letters
WHERE $wanted AND topic = $topic AND reason IN ('fold_failed', 'instant_skewed')
