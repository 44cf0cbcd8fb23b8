-- Does every user have the latest attributes, and all aliases and touches?
-- Grain: one user. An offender: its row differs from its events.
WITH history AS (
    SELECT key_hash, user_id, event_id, type, occurred_at, attributes, alias_id,
           row_number() OVER (PARTITION BY key_hash, user_id
                              ORDER BY occurred_at, list_position($user_types, type), event_id) AS place
    FROM user_events WHERE key_hash BETWEEN $first AND $last
),
carried AS (
    SELECT key_hash, user_id,
           {attributes: arg_max(attributes, place) FILTER (attributes IS NOT NULL),
            aliases: coalesce(list_sort(list(DISTINCT alias_id) FILTER (type = 'linked')), []),
            touches: count(*) FILTER (type = 'touched')} AS journal
    FROM history GROUP BY ALL
),
kept AS (
    SELECT key_hash, user_id,
           {attributes: attributes, aliases: aliases, touches: touches} AS row_says
    FROM users WHERE key_hash BETWEEN $first AND $last
)
SELECT user_id, row_says, journal
FROM kept JOIN carried USING (key_hash, user_id)
WHERE row_says IS DISTINCT FROM journal
