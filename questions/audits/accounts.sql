-- Is every record that was read accounted for once?
-- Grain: one partition. An offender: read is not applied + repeats + conflicts + dead letters, one of them is below zero,
-- or more was read than there are offsets. The consumer checks it at each commit, so the table was changed since.
SELECT topic, log_partition, next_offset, read, applied, repeats, conflicts, dead_letters
FROM checkpoints
WHERE read <> applied + repeats + conflicts + dead_letters OR least(applied, repeats, conflicts, dead_letters) < 0
   OR read > next_offset
