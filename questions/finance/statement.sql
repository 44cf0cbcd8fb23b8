-- Which moves do the rows of coupons show, if they show all of them (input: `plain`)? Grain: one campaign and currency.
-- `opening`: coupons out at $since; `issued`, `used`, `expired`, `revoked`: moves from $since on and before $until.
-- `…_coupons`: their number; `…_minor`: the sum of their face values; `…_unknown`: the number of those without one. A
-- coupon that was never issued was never out; a used coupon cannot end.
SELECT campaign_id, currency, count(*) FILTER (came_earlier) - count(*) FILTER (went_earlier) AS opening_coupons,
       count(*) FILTER (came) AS issued_coupons, count(*) FILTER (gone AND went = 'used') AS used_coupons,
       count(*) FILTER (gone AND went = 'expired') AS expired_coupons,
       count(*) FILTER (gone AND went = 'revoked') AS revoked_coupons,
       coalesce(sum(worth) FILTER (came_earlier), 0) - coalesce(sum(worth) FILTER (went_earlier), 0) AS opening_minor,
       coalesce(sum(worth) FILTER (came), 0) AS issued_minor, coalesce(sum(worth) FILTER (gone AND went = 'used'), 0) AS used_minor,
       coalesce(sum(worth) FILTER (gone AND went = 'expired'), 0) AS expired_minor,
       coalesce(sum(worth) FILTER (gone AND went = 'revoked'), 0) AS revoked_minor,
       count(*) FILTER (came_earlier AND unknown) - count(*) FILTER (went_earlier AND unknown) AS opening_unknown,
       count(*) FILTER (came AND unknown) AS issued_unknown,
       count(*) FILTER (gone AND unknown AND went = 'used') AS used_unknown,
       count(*) FILTER (gone AND unknown AND went = 'expired') AS expired_unknown,
       count(*) FILTER (gone AND unknown AND went = 'revoked') AS revoked_unknown
FROM (
    SELECT *, worth IS NULL AS unknown,
           coalesce(came_at < $since, false) AS came_earlier, coalesce(went_at < $since, false) AS went_earlier,
           NOT came_earlier AND coalesce(came_at < $until, true) AS came,
           went_at IS NOT NULL AND NOT went_earlier AND coalesce(went_at < $until, true) AS gone
    FROM (
        SELECT campaign_id, currency, face_value_minor AS worth, issued_at AS came_at,
               coalesce(used_at, ended_at) AS went_at,
               CASE WHEN used_at IS NOT NULL THEN 'used' ELSE state::VARCHAR END AS went
        FROM plain WHERE issued_at IS NOT NULL
    )
)
GROUP BY ALL
