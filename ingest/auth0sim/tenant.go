package auth0sim

import (
	"bytes"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Names of the rate limit buckets in events (modelled).
const (
	managementBucket     = "management-api"
	authenticationBucket = "authentication-api"
)

// A Tenant is one simulated Auth0 tenant. It is safe for concurrent use.
type Tenant struct {
	// What follows is set by New and never changed.

	cfg         Config
	pools       *pools
	timeline    timeline
	kinds       []kindEntry
	kindIndex   map[string]int // by type, or type:variant
	mixture     []int          // 1,024 kinds as often as weights says
	rare        []int          // kinds for oddity
	unknown     int            // the kind that no client knows
	operations  []operation
	typos       []string
	loginFaults []loginFault
	occurrences []occurrence
	planned     []planned // sorted by pos
	answers     []Answer
	probeUser   user
	mux         *http.ServeMux
	keys        func() signer
	buffers     sync.Pool // *[]byte, for pages

	mu        sync.Mutex // guards all below
	newest    int64      // latest time that was told to anyone, µs
	others    []event    // sorted by pos; only ever appended to
	nextTail  uint64
	bucket    bucket
	lastHit   int64 // µs of the last api_limit event
	failures  map[attempt]failures
	keyEpoch  int // counts RevokeTokens
	lastToken verifiedToken
	faults    []Fault
	outage    *int // status of SetProbeOutage; nil = off
	streams   []LogStream
	calls     map[Call]int
	served    int64
}

// An event that a caller caused. raw is never changed.
type event struct {
	pos pos
	raw []byte
}

// New makes a tenant. It panics if Config.Attacks names an unknown kind.
func New(cfg Config) *Tenant {
	cfg = cfg.withDefaults()
	t := &Tenant{
		cfg:         cfg,
		pools:       newPools(cfg.Seed),
		kindIndex:   make(map[string]int),
		operations:  operations(),
		typos:       typos(),
		loginFaults: loginFaults(),
		failures:    make(map[attempt]failures),
		calls:       make(map[Call]int),
		streams:     slices.Clone(cfg.LogStreams),
	}
	t.timeline = timeline{
		seed:    mix(cfg.Seed ^ 0x74696d65),
		history: int64(cfg.HistoryEvents),
		start:   micros(cfg.Anchor.Add(-cfg.HistorySpan)),
		anchor:  micros(cfg.Anchor),
		rate:    cfg.LiveRate,
	}
	t.keys = sync.OnceValue(func() signer { return newSigner(cfg.SigningKey) })
	t.buffers.New = func() any { return new([]byte) }
	t.compileKinds()
	r := rng(mix(cfg.Seed ^ 0x70726f6265))
	idp := string(r.text(nil, 24, hexDigits))
	name := escaped(cfg.Username)
	t.probeUser = user{id: "auth0|" + idp, idp: idp, name: name, email: name,
		conn: &conn{t.pools.conns[0].id, escaped(cfg.Realm), "auth0", "database"}}
	t.plan()
	t.bucket = bucket{limit: cfg.Limit}
	t.mux = t.routes()
	return t
}

// compileKinds fills kinds and the indexes into it.
func (t *Tenant) compileKinds() {
	names := slotNames()
	add := func(k kind) int {
		key := k.code
		if k.variant != "" {
			key += ":" + k.variant
		}
		t.kindIndex[key] = len(t.kinds)
		t.kinds = append(t.kinds, kindEntry{k.code, roleOf(k.code), k.templates(names)})
		return len(t.kinds) - 1
	}
	for _, k := range catalog() {
		i := add(k)
		if k.variant == "" && !attackSign(k.code) {
			t.rare = append(t.rare, i)
		}
	}
	t.unknown = add(kind{code: "yet_unannounced", desc: "A type that no documentation lists", fields: "ip client user",
		details: `{"stage":<int:1:9>,"nested":{"list":[1,"two",null]}}`})
	for _, w := range weights() {
		t.mixture = append(t.mixture, slices.Repeat([]int{t.kindIndex[w.code]}, w.n)...)
	}
}

// attackSign tells the types of which one event alone may mean an attack. They
// never occur in the background, so that Answers stays exact.
func attackSign(code string) bool {
	return strings.HasPrefix(code, "api_limit") || strings.HasPrefix(code, "limit_") ||
		strings.HasSuffix(code, "pwd_leak") || strings.HasSuffix(code, "_rate_limit_exceed") || strings.HasPrefix(code, "kms_") ||
		code == "ferrt" || code == "fapi" || code == "appi" || code == "ublkdu"
}

// now is the tenant's clock, in µs. It never goes back. mu must be held.
func (t *Tenant) now() int64 {
	t.newest = max(t.newest, micros(t.cfg.Now()))
	return t.newest
}

// clock is now for those who do not hold mu.
func (t *Tenant) clock() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.UnixMicro(t.now()).UTC()
}

// Inject adds one event to the log. It gets the next log_id and is visible at
// once. The bytes that make returns are served as they are, so they may be any
// text, even one that breaks the page. make must not call the tenant.
func (t *Tenant) Inject(make func(id string, now time.Time) []byte) (id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := pos{t.now(), t.nextTail}
	id = p.id()
	t.add(p, bytes.Clone(make(id, time.UnixMicro(p.us).UTC())))
	return id
}

// record adds an event of the type that a call has caused. mu must be held.
func (t *Tenant) record(code string, change func(*scene)) {
	p := pos{t.now(), t.nextTail}
	s := scene{pos: p, date: p.us, rng: rng(mix(t.cfg.Seed ^ mix(p.tail)))}
	k := &t.kinds[t.kindIndex[code]]
	t.fill(&s, k)
	change(&s)
	if s.user.conn != nil {
		s.conn = s.user.conn
	}
	t.add(p, k.shapes[shapeModern].render(nil, &s))
}

// add appends an event whose position was made with now and nextTail under the
// same lock, hence the list stays sorted.
func (t *Tenant) add(p pos, raw []byte) {
	t.nextTail++
	t.others = append(t.others, event{p, raw})
}

// IDs is every visible log_id in order. It takes 56 bytes and more per event.
func (t *Tenant) IDs() []string {
	v := t.view()
	s := v.all()
	ids := make([]string, 0, s.len())
	for {
		r, ok := s.first()
		if !ok {
			return ids
		}
		ids = append(ids, r.pos.id())
	}
}

// Total is the number of visible events.
func (t *Tenant) Total() int {
	v := t.view()
	s := v.all()
	return s.len()
}

// Event is the visible event with this log_id as the tenant serves it.
func (t *Tenant) Event(id string) ([]byte, bool) {
	v := t.view()
	r, ok := v.find(id)
	if !ok {
		return nil, false
	}
	return v.render(nil, r), true
}

// A Call is an endpoint, as "GET /api/v2/logs", and the status it answered;
// status 0 is no answer or half of one. Endpoint "" is a path that nothing
// serves.
type Call struct {
	Endpoint string
	Status   int
}

// Stats counts since New.
type Stats struct {
	Calls  map[Call]int
	Events int64 // events in answers, whole or cut
}

// Stats tells how the tenant was used.
func (t *Tenant) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{maps.Clone(t.calls), t.served}
}

// RevokeTokens makes all issued tokens invalid: the signing key gets a new id,
// and only that one is published.
func (t *Tenant) RevokeTokens() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keyEpoch++
}

// SetProbeOutage lets password grants fail with the status (0 = 503), besides
// Config.ProbeOutages, until it is called with false.
func (t *Tenant) SetProbeOutage(on bool, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outage = nil
	if on {
		t.outage = &status
	}
}
