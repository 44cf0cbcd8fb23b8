-- Does every violation point to an event of its key, at its instant, or to a conflicting content?
-- Grain: one violation. An offender: a violation without its event: either the violation was left behind, or the event
-- was lost.
WITH events AS (
    SELECT 'coupon.events' AS topic, key_hash, coupon_id AS key, event_id, occurred_at, false AS conflicting FROM coupon_events WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'order.events', key_hash, order_id, event_id, occurred_at, false FROM order_events WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaign.events', key_hash, campaign_id, event_id, occurred_at, false FROM campaign_events WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'user.events', key_hash, user_id, event_id, occurred_at, false FROM user_events WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'coupon.events', key_hash, coupon_id, event_id, occurred_at, true FROM coupon_conflicts WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'order.events', key_hash, order_id, event_id, occurred_at, true FROM order_conflicts WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'campaign.events', key_hash, campaign_id, event_id, occurred_at, true FROM campaign_conflicts WHERE key_hash BETWEEN $first AND $last
    UNION ALL
    SELECT 'user.events', key_hash, user_id, event_id, occurred_at, true FROM user_conflicts WHERE key_hash BETWEEN $first AND $last
)
SELECT topic, key, event_id, violation, scope, occurred_at
FROM (SELECT *, violation = 'conflicting_duplicate' AS conflicting FROM violations
      WHERE key_hash BETWEEN $first AND $last AND violation <> 'below_min_after_refund') v
ANTI JOIN events e USING (topic, key_hash, key, event_id, occurred_at, conflicting)
UNION ALL
-- This violation is stored on a coupon, but its event belongs to the order.
SELECT topic, key, event_id, violation, scope, occurred_at
FROM (FROM violations WHERE order_hash BETWEEN $first AND $last AND violation = 'below_min_after_refund') v
ANTI JOIN (SELECT key_hash AS order_hash, order_id AS counterpart, event_id, occurred_at FROM order_events
           WHERE key_hash BETWEEN $first AND $last) e USING (order_hash, counterpart, event_id, occurred_at)
