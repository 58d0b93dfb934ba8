-- How far the rules with long windows have been run over what is kept, one row for
-- each: events inserted up to then have been seen. A rule without a row is new.
CREATE TABLE IF NOT EXISTS scans_stored
(
    rule_id    String,
    scanned_to DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(scanned_to)
ORDER BY rule_id
SETTINGS non_replicated_deduplication_window = 1000;

CREATE VIEW IF NOT EXISTS scans AS
SELECT rule_id, scanned_to FROM scans_stored FINAL;
