-- How much of each discount is of which category of goods? Grain: one discount of `taken` (given: discounts.sql) and line of
-- its order; of an order without lines, or of none that is known, the discount itself, of the category '(no lines)'.
-- A discount is shared by what lines say was taken off them, where one says so; else by what was paid for them; else
-- alike. The lines with the largest remainders get what rounding leaves (largest remainder, Hamilton's method), the
-- first of them among equals: the parts of a discount sum to it, to the minor unit.
WITH numbered AS (
    SELECT row_number() OVER () AS number, * FROM taken
),
lines AS (
    SELECT order_id, place, line.category AS category, greatest(coalesce(line.discount_minor, 0), 0) AS told_minor,
           greatest(coalesce(line.net_minor, 0), 0) AS paid_minor
    FROM (
        SELECT order_id, unnest(lines) AS line, generate_subscripts(lines, 1) AS place FROM orders
        WHERE len(lines) > 0 AND order_id IN (SELECT order_id FROM taken)
    )
),
weighed AS (
    SELECT order_id, place, category,
           (CASE WHEN max(told_minor) OVER of_order > 0 THEN told_minor
                 WHEN max(paid_minor) OVER of_order > 0 THEN paid_minor ELSE 1 END)::HUGEINT AS weight
    FROM lines
    WINDOW of_order AS (PARTITION BY order_id)
),
shared AS (
    SELECT n.*, w.place, w.category, abs(n.amount_minor)::HUGEINT AS whole,
           whole * w.weight // sum(w.weight) OVER of_discount AS share,
           whole * w.weight % sum(w.weight) OVER of_discount AS remainder
    FROM numbered n LEFT JOIN weighed w ON w.order_id = n.order_id
    WINDOW of_discount AS (PARTITION BY n.number)
),
rounded AS (
    SELECT *, whole - sum(share) OVER (PARTITION BY number) AS over,
           row_number() OVER (PARTITION BY number ORDER BY remainder DESC, place) AS turn
    FROM shared
)
SELECT * EXCLUDE (number, amount_minor, place, category, whole, share, remainder, over, turn),
       CASE WHEN place IS NULL THEN '(no lines)' ELSE category END AS category,
       CASE WHEN place IS NULL THEN amount_minor
            ELSE sign(amount_minor) * (share + CASE WHEN turn <= over THEN 1 ELSE 0 END) END::BIGINT AS amount_minor
FROM rounded
