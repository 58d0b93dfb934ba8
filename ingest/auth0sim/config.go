package auth0sim

import (
	"cmp"
	"crypto/rsa"
	"time"
)

// Config describes a tenant. The zero value is a tenant without history or live
// events that answers with defaults.
type Config struct {
	// Name is the tenant's name, as in tenant_name. Default "demo".
	Name string
	// Domain is the tenant's canonical domain, as in hostname and in the
	// audience of its Management API. Default Name + ".eu.auth0.com". The
	// host of a request is accepted in the audience, too.
	Domain string

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Seed determines every background event. The same Seed, Anchor and sizes
	// give the same log.
	Seed uint64
	// Anchor is the time at which history ends and live events begin.
	// Default: Now at New.
	Anchor time.Time
	// HistoryEvents is the number of events before Anchor. Default 0.
	HistoryEvents int
	// HistorySpan is how far back they reach. Default 24h.
	HistorySpan time.Duration
	// LiveRate is the number of background events per second after Anchor.
	// Default 0.
	LiveRate float64
	// Retention hides events whose log_id is older. Default 30 days.
	Retention time.Duration
	// MaxIngestLag is the longest time between an event's date and its
	// log_id: dates are out of order by up to this much. Default 2s;
	// negative = none.
	MaxIngestLag time.Duration
	// LateShare is the share (0 to 1) of live background events that become
	// visible only LateBy after the time in their log_id, after later ids.
	// Default 0.
	LateShare float64
	LateBy    time.Duration
	// Shapes selects the form of background events. Default ShapesMixed.
	Shapes Shapes
	// Attacks are scripted series of events; see Answers.
	Attacks []Attack

	// Latency delays every answer. Default 0.
	Latency time.Duration
	// Limit applies to all of /api/v2. Default: none.
	Limit Limit
	// RefuseSyntheticFrom answers 400 to a from that is not an id issued by the
	// tenant.
	RefuseSyntheticFrom bool

	// ClientID and ClientSecret are the machine-to-machine application.
	// Defaults "sim-client" and "sim-secret".
	ClientID     string
	ClientSecret string
	// PublicKey verifies private_key_jwt assertions (RS256) of ClientID.
	// Default nil: assertions are refused.
	PublicKey *rsa.PublicKey
	// Scopes are granted to ClientID. Default read:logs.
	Scopes []string
	// LogStreams are listed by GET /api/v2/log-streams, which needs the scope
	// read:log_streams. Default none.
	LogStreams []LogStream
	// TokenLifetime is the lifetime of access tokens. Default 24h.
	TokenLifetime time.Duration
	// SigningKey signs tokens. Default: a 2048-bit key, generated when first
	// needed. Tests share one, since generating a key takes a while.
	SigningKey *rsa.PrivateKey

	// Username, Password and Realm describe the only user who can log in by
	// password, through ProbeClientID. Defaults "probe@example.com",
	// "probe-password", "Username-Password-Authentication", "probe-client".
	Username      string
	Password      string
	Realm         string
	ProbeClientID string
	// MFARequired answers mfa_required to a correct password.
	MFARequired bool
	// PasswordGrantDisabled refuses the password grant to ProbeClientID.
	PasswordGrantDisabled bool
	// PasswordLeaked treats the correct password as breached.
	PasswordLeaked bool
	// ProbeOutages are the times at which password grants fail.
	ProbeOutages []Outage
	// Incidents are the entries of the status feeds.
	Incidents []Incident
}

// Limit is a token bucket, or a fixed window.
type Limit struct {
	Burst     int     // calls that a full bucket allows; 0 = no limit
	PerSecond float64 // refill
	// Window replaces the refill: Burst calls are allowed in each window. Windows
	// begin at multiples of it since 1970. Default none.
	Window time.Duration
	// RetryAfter adds the Retry-After header to a 429. Auth0 documents it for some
	// limits only.
	RetryAfter bool
}

// LogStream is a log stream of the tenant. The simulator lists it but sends
// nothing.
type LogStream struct {
	ID     string
	Name   string
	Type   string // default http
	Status string // active, paused or suspended; default active
}

// Outage is a time span in which password grants fail.
type Outage struct {
	From, To time.Duration // from Anchor; To excluded
	Status   int           // HTTP status of the response; 0 = 503
}

// Incident is an entry of the status feeds.
type Incident struct {
	From, To    time.Duration // from Anchor; To 0 = not resolved
	Title       string
	Description string
	Impact      string // none, minor, major or critical; default minor
}

// Shapes selects the form of background events.
type Shapes int

const (
	// ShapesMixed are the forms in a long-lived tenant: null and absent members,
	// scope as text and as array, details null, unknown types, rarely a
	// missing _id or a date that is an object.
	ShapesMixed Shapes = iota
	// ShapesClean has one form per type, valid against the published schemas.
	ShapesClean
)

// withDefaults returns the configuration with empty fields set to the defaults.
func (c Config) withDefaults() Config {
	text := func(field *string, def string) { *field = cmp.Or(*field, def) }
	span := func(field *time.Duration, def time.Duration) { *field = cmp.Or(*field, def) }

	text(&c.Name, "demo")
	text(&c.Domain, c.Name+".eu.auth0.com")
	text(&c.ClientID, "sim-client")
	text(&c.ClientSecret, "sim-secret")
	text(&c.Username, "probe@example.com")
	text(&c.Password, "probe-password")
	text(&c.Realm, "Username-Password-Authentication")
	text(&c.ProbeClientID, "probe-client")

	// A negative MaxIngestLag means none, so only 0 is replaced.
	span(&c.HistorySpan, 24*time.Hour)
	span(&c.Retention, 30*24*time.Hour)
	span(&c.MaxIngestLag, 2*time.Second)
	span(&c.TokenLifetime, 24*time.Hour)

	if c.Now == nil {
		c.Now = time.Now
	}

	// After Now: the anchor is a time of that clock.
	if c.Anchor.IsZero() {
		c.Anchor = c.Now()
	}
	if len(c.Scopes) == 0 {
		c.Scopes = []string{"read:logs"}
	}

	c.HistoryEvents = max(c.HistoryEvents, 0)
	c.LiveRate = max(c.LiveRate, 0)
	return c
}

// Config returns the tenant's configuration, with defaults.
func (t *Tenant) Config() Config { return t.cfg }
