-- All violations, each with two flags. Grain: one violation.
-- `explained`: for `wrong_user`, whether the event's user and the coupon's owner are the same person (linked ids). Such
-- a violation counts in no loss and raises no alert. `provisional`: for rules between topics, whether the other topic
-- has not yet been read past the `recorded_at` of the event that triggered the violation. A fact that removes the
-- violation may then still be in the log.
SELECT v.*,
       coalesce(v.violation = 'wrong_user' AND coalesce(a.person, v.user_id) = coalesce(b.person, v.owner), false)
           AS explained,
       coalesce(v.trigger_recorded_at > if(
           v.trigger_topic = 'coupon.events',
           (SELECT min(complete_until) FROM partition_progress WHERE topic = 'order.events'),
           (SELECT min(complete_until) FROM partition_progress WHERE topic = 'coupon.events')
       ), false) AS provisional
FROM violations v
LEFT JOIN persons a ON a.user_id = v.user_id
LEFT JOIN persons b ON b.user_id = v.owner
