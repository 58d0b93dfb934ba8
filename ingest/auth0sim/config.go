package auth0sim

import (
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
	// host a request is sent to is accepted in the audience as well.
	Domain string

	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Seed decides every background event. The same Seed, Anchor and sizes
	// give the same log.
	Seed uint64
	// Anchor is the moment where history ends and live events begin.
	// Default: Now at New.
	Anchor time.Time
	// HistoryEvents is the number of events before Anchor. Default 0.
	HistoryEvents int
	// HistorySpan is how far back they reach. Default 24h.
	HistorySpan time.Duration
	// LiveRate is background events per second from Anchor on. Default 0:
	// none.
	LiveRate float64
	// Retention cuts off events whose log_id is older. Default 30 days.
	Retention time.Duration
	// MaxIngestLag is the longest time between an event's date and its
	// log_id: dates are out of order by up to this much. Default 2s;
	// negative = none.
	MaxIngestLag time.Duration
	// LateShare is the share (0 to 1) of live background events that become
	// visible only LateBy after the time in their log_id, when later ids
	// have long been seen. Default 0.
	LateShare float64
	LateBy    time.Duration
	// Shapes is the form of background events. Default ShapesMixed.
	Shapes Shapes
	// Attacks are scripted series of events; see Answers.
	Attacks []Attack

	// Latency delays every answer. Default 0.
	Latency time.Duration
	// Limit applies to all of /api/v2. Default: none.
	Limit Limit
	// RefuseSyntheticFrom answers 400 to a from that is no id the tenant
	// ever gave out.
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
	// LogStreams are what GET /api/v2/log-streams lists; that needs the scope
	// read:log_streams. Default none.
	LogStreams []LogStream
	// TokenLifetime is the life of access tokens. Default 24h.
	TokenLifetime time.Duration
	// SigningKey signs tokens. Default: a new 2048-bit key when the first
	// is needed. Tests share one, since making a key takes a while.
	SigningKey *rsa.PrivateKey

	// Username, Password and Realm are the one user who can log in by
	// password, through ProbeClientID. Defaults "probe@example.com",
	// "probe-password", "Username-Password-Authentication", "probe-client".
	Username      string
	Password      string
	Realm         string
	ProbeClientID string
	// MFARequired answers mfa_required to a right password.
	MFARequired bool
	// PasswordGrantDisabled refuses the password grant to ProbeClientID.
	PasswordGrantDisabled bool
	// PasswordLeaked treats the right password as breached.
	PasswordLeaked bool
	// ProbeOutages are when password grants fail.
	ProbeOutages []Outage
	// Incidents are what the status feeds tell.
	Incidents []Incident
}

// Limit is a token bucket, or a fixed window.
type Limit struct {
	Burst     int     // calls the full bucket allows; 0 = no limit
	PerSecond float64 // refill
	// Window makes it Burst calls a window, all of which are back at its end,
	// without a refill. Windows begin at multiples of it since 1970. Default
	// none.
	Window time.Duration
	// RetryAfter adds that header to a 429, which Auth0 documents for some
	// limits only.
	RetryAfter bool
}

// LogStream is a way by which the tenant sends its log elsewhere. The simulator
// only lists it: nothing is sent.
type LogStream struct {
	ID     string
	Name   string
	Type   string // default http
	Status string // active, paused or suspended; default active
}

// Outage is a time during which password grants fail.
type Outage struct {
	From, To time.Duration // from Anchor; To excluded
	Status   int           // HTTP status of the answer; 0 = 503
}

// Incident is an entry of the status feeds.
type Incident struct {
	From, To    time.Duration // from Anchor; To 0 = not resolved yet
	Title       string
	Description string
	Impact      string // none, minor, major or critical; default minor
}

// Shapes says how uniform background events are.
type Shapes int

const (
	// ShapesMixed is what a long-lived tenant holds: null and absent members,
	// scope as text and as array, details null, unknown types, rarely a
	// missing _id or a date that is an object.
	ShapesMixed Shapes = iota
	// ShapesClean is one form per type, valid against the published schemas.
	ShapesClean
)

// withDefaults fills in what was left empty.
func (c Config) withDefaults() Config {
	text := func(v *string, def string) {
		if *v == "" {
			*v = def
		}
	}
	span := func(v *time.Duration, def time.Duration) {
		if *v == 0 {
			*v = def
		}
	}
	text(&c.Name, "demo")
	text(&c.Domain, c.Name+".eu.auth0.com")
	text(&c.ClientID, "sim-client")
	text(&c.ClientSecret, "sim-secret")
	text(&c.Username, "probe@example.com")
	text(&c.Password, "probe-password")
	text(&c.Realm, "Username-Password-Authentication")
	text(&c.ProbeClientID, "probe-client")
	span(&c.HistorySpan, 24*time.Hour)
	span(&c.Retention, 30*24*time.Hour)
	span(&c.MaxIngestLag, 2*time.Second)
	span(&c.TokenLifetime, 24*time.Hour)
	if c.Now == nil {
		c.Now = time.Now
	}
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

// Config is the tenant's configuration, with the defaults filled in.
func (t *Tenant) Config() Config { return t.cfg }
