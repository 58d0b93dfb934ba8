-- The command that looks further into an alert. The views have their columns from
-- when they were made.
ALTER TABLE alerts_stored ADD COLUMN IF NOT EXISTS investigation String AFTER prevention;

CREATE OR REPLACE VIEW alert_transitions AS
SELECT * FROM alerts_stored FINAL;

CREATE OR REPLACE VIEW alerts AS
SELECT * FROM alert_transitions
ORDER BY updated_at DESC, state = 'resolved' DESC
LIMIT 1 BY tenant, fingerprint, starts_at;
