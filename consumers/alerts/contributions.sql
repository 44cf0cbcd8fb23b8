-- How much of a metric is of which part? Grain: one value (`part`) of one kind of parts (`kind`: its number among `sets`).
-- `of`, `per`: the sums of the numerator and the denominator, over the events of a window (`events`) that have the alert's
-- key (`tests`).
SELECT {kind} AS kind, {part} AS part, ({of})::DOUBLE AS of, ({per})::DOUBLE AS per
FROM ({events})
WHERE true{tests}
GROUP BY GROUPING SETS ({sets})
HAVING of != 0 OR per != 0
ORDER BY kind, part
