-- What an alert tells may be a sum or a mean, not only a count. The views have the
-- types of their columns from when they were made.
ALTER TABLE alerts_stored MODIFY COLUMN count Float64, MODIFY COLUMN threshold Float64;

CREATE OR REPLACE VIEW alert_transitions AS
SELECT * FROM alerts_stored FINAL;

CREATE OR REPLACE VIEW alerts AS
SELECT * FROM alert_transitions
ORDER BY updated_at DESC, state = 'resolved' DESC
LIMIT 1 BY tenant, fingerprint, starts_at;
