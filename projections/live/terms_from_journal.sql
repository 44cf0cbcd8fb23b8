-- Which terms of a campaign are in force from which instant on? Grain: one campaign in `touched` and one instant at
-- which events carry a term. Each value is from the canonically last event, up to this instant, that carries it.
-- $carrying: the event types that can carry terms; $types: all types of campaign events in canonical order.
WITH carried AS (
    SELECT e.key_hash AS campaign_hash, e.campaign_id, e.occurred_at, list_position($types, e.type) AS type_order,
           e.event_id, e.quantity, e.per_user_limit, e.claim_from, e.claim_until
    FROM campaign_events e
    SEMI JOIN touched t ON e.key_hash = t.campaign_hash AND e.campaign_id = t.campaign_id
    WHERE list_contains($carrying, e.type)
      AND (e.quantity IS NOT NULL OR e.per_user_limit IS NOT NULL OR e.claim_from IS NOT NULL
           OR e.claim_until IS NOT NULL)
)
SELECT campaign_hash, campaign_id, occurred_at AS since,
       last_value(quantity IGNORE NULLS) OVER so_far AS quantity,
       last_value(per_user_limit IGNORE NULLS) OVER so_far AS per_user_limit,
       last_value(claim_from IGNORE NULLS) OVER so_far AS claim_from,
       last_value(claim_until IGNORE NULLS) OVER so_far AS claim_until
FROM carried
WINDOW so_far AS (
    PARTITION BY campaign_hash, campaign_id ORDER BY occurred_at, type_order, event_id
    ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
)
QUALIFY row_number() OVER (
    PARTITION BY campaign_hash, campaign_id, occurred_at ORDER BY type_order DESC, event_id DESC
) = 1
