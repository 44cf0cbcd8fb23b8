-- What did operators do, when and why? Grain: one operation, the latest first.
SELECT occurred_at, action, operator, subject, reason, details, recorded_at, event_id
FROM operation_events
WHERE ($operator IS NULL OR operator = $operator)
  AND ($action IS NULL OR action = $action)
  AND ($subject IS NULL OR subject = $subject)
  AND ($since::TIMESTAMP IS NULL OR occurred_at >= $since::TIMESTAMP)
  AND ($until::TIMESTAMP IS NULL OR occurred_at < $until::TIMESTAMP)
ORDER BY occurred_at DESC, recorded_at DESC, log_partition, log_offset DESC
LIMIT $limit
