-- Is every record that was read accounted for once?
-- Grain: one partition. An offender: read differs from applied + repeats + conflicts + dead letters, one of these is
-- negative, or more records were read than there are offsets. The consumer checks this at every commit, so somebody
-- changed the table afterwards.
SELECT topic, log_partition, next_offset, read, applied, repeats, conflicts, dead_letters
FROM checkpoints
WHERE read <> applied + repeats + conflicts + dead_letters OR least(applied, repeats, conflicts, dead_letters) < 0
   OR read > next_offset
