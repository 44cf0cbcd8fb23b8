-- How is each discount spread over categories of goods? Grain: one discount of `taken` (input: discounts.sql) and
-- category of its order's lines; if the order has no lines or is unknown, the whole discount has the category '(no
-- lines)'. A discount is allocated to the lines in proportion to the discounts that the lines state, if any does; else
-- to what was paid for them; else equally. Units left over by rounding go to the lines with the largest remainders
-- (Hamilton's method), the first line among equals. So the parts of a discount sum exactly to it.
-- Uses lists instead of windows, since a year's orders have ten times as many lines.
WITH numbered AS MATERIALIZED (
    SELECT row_number() OVER () AS number, * FROM taken
),
weighed AS (
    SELECT order_id, [line.category FOR line IN lines] AS categories,
           CASE WHEN list_max(stated) > 0 THEN stated WHEN list_max(paid) > 0 THEN paid ELSE [1::HUGEINT FOR line IN lines] END AS weights
    FROM (
        SELECT order_id, lines, [greatest(coalesce(line.discount_minor, 0), 0)::HUGEINT FOR line IN lines] AS stated,
               [greatest(coalesce(line.net_minor, 0), 0)::HUGEINT FOR line IN lines] AS paid
        FROM orders
        WHERE len(lines) > 0 AND order_id IN (SELECT order_id FROM taken)
    )
),
shared AS (
    SELECT n.number, n.amount_minor, w.categories, w.weights, list_sum(w.weights)::HUGEINT AS weight,
           abs(n.amount_minor)::HUGEINT AS whole, [whole * one // weight FOR one IN w.weights] AS shares,
           (whole - list_sum(shares))::BIGINT AS left_over
    FROM numbered n JOIN weighed w ON w.order_id = n.order_id
),
rounded AS (
    SELECT number, sign(amount_minor) AS direction, categories, shares,
           CASE WHEN left_over > 0 THEN [turn.place FOR turn IN list_sort(
               [{'remainder': -(whole * one % weight), 'place': place} FOR one, place IN weights])[:left_over]] END AS up
    FROM shared
),
parts AS (
    SELECT number, category, sum(part) AS amount_minor
    FROM (
        SELECT number, unnest(categories) AS category, direction * unnest(shares)::BIGINT AS part FROM rounded
        UNION ALL
        SELECT number, unnest([categories[place] FOR place IN up]), direction FROM rounded WHERE up IS NOT NULL
    )
    GROUP BY ALL
)
SELECT n.* EXCLUDE (number, amount_minor), CASE WHEN p.number IS NULL THEN '(no lines)' ELSE p.category END AS category,
       coalesce(p.amount_minor, n.amount_minor) AS amount_minor
FROM numbered n LEFT JOIN parts p ON p.number = n.number
