-- How much of a metric is of which part? Grain: one value of the column `part`. `of`, `per`: the sums of the numerator and
-- the denominator, over the events of a window (`events`) that have the alert's key (`tests`).
SELECT {part} AS part, ({of})::DOUBLE AS of, ({per})::DOUBLE AS per
FROM ({events})
WHERE true{tests}
GROUP BY {part}
HAVING of != 0 OR per != 0
ORDER BY part
