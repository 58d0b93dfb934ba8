-- What an insert acknowledges has to survive a kill and a power loss.
--
-- No deduplication of inserts: a server that is killed between writing the token of
-- an insert and renaming its part comes back with the token and without the rows, and
-- drops the repeat. The key of each table is the identity of its rows, and readers
-- merge by it, so a repeat needs no token.
--
-- fsync: by default an acknowledged insert is in the page cache only, while the
-- offset of its records is committed. Merges need none: ClickHouse keeps the merged
-- parts for minutes after.
ALTER TABLE events_stored MODIFY SETTING non_replicated_deduplication_window = 0, fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE alerts_stored MODIFY SETTING non_replicated_deduplication_window = 0, fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE coverage_stored MODIFY SETTING non_replicated_deduplication_window = 0, fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE scans_stored MODIFY SETTING non_replicated_deduplication_window = 0, fsync_after_insert = 1, fsync_part_directory = 1;
ALTER TABLE schema_migrations MODIFY SETTING non_replicated_deduplication_window = 0, fsync_after_insert = 1, fsync_part_directory = 1;
