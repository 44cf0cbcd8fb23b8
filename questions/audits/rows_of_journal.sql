-- Do the keys in the journals have rows and the reverse, with the same number of events, first event and last event?
-- Grain: one key of a table. An offender: journal and state differ. `latest`: instant and type of the canonically last
-- event as one number. It decides whether another event is later.
WITH from_journal AS (
    SELECT 'coupons' AS projection, key_hash, coupon_id AS key, count(*) AS events, max(occurred_at) AS last_event_at,
           max(epoch_us(occurred_at) * 16 + list_position($coupon_types, type)) AS latest, min(recorded_at) AS first_recorded_at
    FROM coupon_events WHERE key_hash BETWEEN $first AND $last GROUP BY ALL
    UNION ALL
    SELECT 'orders', key_hash, order_id, count(*), max(occurred_at),
           max(epoch_us(occurred_at) * 16 + list_position($order_types, type)), min(recorded_at)
    FROM order_events WHERE key_hash BETWEEN $first AND $last GROUP BY ALL
    UNION ALL
    SELECT 'campaigns', key_hash, campaign_id, count(*), max(occurred_at),
           max(epoch_us(occurred_at) * 16 + list_position($campaign_types, type)), min(recorded_at)
    FROM campaign_events WHERE key_hash BETWEEN $first AND $last GROUP BY ALL
    UNION ALL
    SELECT 'users', key_hash, user_id, count(*), max(occurred_at),
           max(epoch_us(occurred_at) * 16 + list_position($user_types, type)), min(recorded_at)
    FROM user_events WHERE key_hash BETWEEN $first AND $last GROUP BY ALL
),
kept AS (
    SELECT 'coupons' AS projection, key_hash, coupon_id AS key, events, last_event_at,
           epoch_us(last_event_at) * 16 + last_type + 1 AS latest, first_recorded_at
    FROM coupons WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'orders', key_hash, order_id, events, last_event_at,
           epoch_us(last_event_at) * 16 + last_type + 1, first_recorded_at
    FROM orders WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaigns', key_hash, campaign_id, events, last_event_at,
           epoch_us(last_event_at) * 16 + last_type + 1, first_recorded_at
    FROM campaigns WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'users', key_hash, user_id, events, last_event_at,
           epoch_us(last_event_at) * 16 + last_type + 1, first_recorded_at
    FROM users WHERE key_hash BETWEEN $first AND $last
)
SELECT projection, key, kept.events AS row_events, from_journal.events AS journal_events,
       kept.last_event_at AS row_last_event_at, from_journal.last_event_at AS journal_last_event_at,
       kept.first_recorded_at AS row_first_recorded_at, from_journal.first_recorded_at AS journal_first_recorded_at
FROM from_journal FULL JOIN kept USING (projection, key_hash, key)
WHERE kept.events IS DISTINCT FROM from_journal.events OR kept.latest IS DISTINCT FROM from_journal.latest
   OR kept.first_recorded_at IS DISTINCT FROM from_journal.first_recorded_at
