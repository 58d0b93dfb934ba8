-- Ten parts at least go into a merge: with the default, in a backlog, the merges of
-- freshly inserted parts took as much time as the inserts. At live rates this leaves
-- some dozens of parts, which readers merge as they read.
ALTER TABLE events_stored MODIFY SETTING min_parts_to_merge_at_once = 10;
