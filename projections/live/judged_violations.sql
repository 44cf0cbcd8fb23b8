-- All violations, with two marks. Grain: one violation.
-- `explained`: the two users are the same person (linked ids). The violation counts in no loss and raises no alert.
-- `provisional`: the other topic has not been read past the event that triggered the violation, so a fact that removes
-- it may still be in the log.
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
