-- Which records of a topic hold valid events that were not folded all the same: folding them failed, or they happened too
-- far from when they were recorded? None unless $asked. One row per record.
SELECT log_partition, log_offset
FROM dead_letters
WHERE $asked AND topic = $topic AND reason IN ('fold_failed', 'instant_skewed')
