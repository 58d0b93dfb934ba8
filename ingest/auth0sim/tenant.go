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

// Names of the rate limit buckets in events (modeled).
const (
	managementBucket     = "management-api"
	authenticationBucket = "authentication-api"
)

// Tenant is one simulated Auth0 tenant. It is safe for concurrent use.
type Tenant struct {
	// Set by New and never changed.

	cfg         Config
	pools       *pools
	timeline    timeline
	kinds       []kindEntry
	kindIndex   map[string]int // by type, or type:variant
	mixture     []int          // 1,024 kinds with the frequencies of weights
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

	mu        sync.Mutex // guards the fields below
	newest    int64      // latest time that was used, µs
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

// event is an event that a caller caused. raw is never changed.
type event struct {
	pos pos
	raw []byte
}

// New returns a tenant. It panics if Config.Attacks has an unknown kind.
func New(cfg Config) *Tenant {
	cfg = cfg.withDefaults()
	tenant := &Tenant{
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
	tenant.timeline = timeline{
		seed:    mix(cfg.Seed ^ 0x74696d65),
		history: int64(cfg.HistoryEvents),
		start:   micros(cfg.Anchor.Add(-cfg.HistorySpan)),
		anchor:  micros(cfg.Anchor),
		rate:    cfg.LiveRate,
	}

	tenant.keys = sync.OnceValue(func() signer { return newSigner(cfg.SigningKey) })
	tenant.buffers.New = func() any { return new([]byte) }
	tenant.compileKinds()
	tenant.probeUser = tenant.newProbeUser()
	tenant.plan()
	tenant.bucket = bucket{limit: cfg.Limit}
	tenant.mux = tenant.routes()
	return tenant
}

// newProbeUser returns the user who can log in by password.
func (t *Tenant) newProbeUser() user {
	random := rng(mix(t.cfg.Seed ^ 0x70726f6265))
	idp := string(random.text(nil, 24, hexDigits))
	name := escaped(t.cfg.Username)
	connection := &conn{t.pools.conns[0].id, escaped(t.cfg.Realm), "auth0", "database"}
	return user{id: "auth0|" + idp, idp: idp, name: name, email: name, conn: connection}
}

// compileKinds sets kinds and the indexes into it.
func (t *Tenant) compileKinds() {
	names := slotNames()

	// The key of a kind is its type, with the variant if it has one.
	add := func(k kind) int {
		key := k.code
		if k.variant != "" {
			key += ":" + k.variant
		}
		t.kindIndex[key] = len(t.kinds)
		t.kinds = append(t.kinds, kindEntry{k.code, roleOf(k.code), k.templates(names)})
		return len(t.kinds) - 1
	}

	for _, entry := range catalog() {
		i := add(entry)
		if entry.variant == "" && !attackSign(entry.code) {
			t.rare = append(t.rare, i)
		}
	}
	t.unknown = add(kind{
		code:    "yet_unannounced",
		desc:    "A type that no documentation lists",
		fields:  "ip client user",
		details: `{"stage":<int:1:9>,"nested":{"list":[1,"two",null]}}`,
	})

	for _, entry := range weights() {
		t.mixture = append(t.mixture, slices.Repeat([]int{t.kindIndex[entry.code]}, entry.n)...)
	}
}

// attackSign reports whether a single event of a type may mean an attack. Such types
// never occur in the background, so that Answers stays exact.
func attackSign(code string) bool {
	switch code {
	case "ferrt", "fapi", "appi", "ublkdu":
		return true
	}
	return strings.HasPrefix(code, "api_limit") ||
		strings.HasPrefix(code, "limit_") ||
		strings.HasPrefix(code, "kms_") ||
		strings.HasSuffix(code, "pwd_leak") ||
		strings.HasSuffix(code, "_rate_limit_exceed")
}

// now returns the tenant's time, in µs. It never goes back. mu must be held.
func (t *Tenant) now() int64 {
	t.newest = max(t.newest, micros(t.cfg.Now()))
	return t.newest
}

// clock returns the tenant's time. mu must not be held.
func (t *Tenant) clock() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.UnixMicro(t.now()).UTC()
}

// Inject adds one event to the log. It gets the next log_id and is visible at once.
// The bytes that build returns are served unchanged, so they may be any text, even one
// that breaks the page. build must not call the tenant.
func (t *Tenant) Inject(build func(id string, now time.Time) []byte) (id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	position := pos{t.now(), t.nextTail}
	id = position.id()
	t.add(position, bytes.Clone(build(id, time.UnixMicro(position.us).UTC())))
	return id
}

// record adds an event that a call caused. change sets what is special about it. mu must
// be held.
func (t *Tenant) record(code string, change func(*scene)) {
	position := pos{t.now(), t.nextTail}
	sc := scene{pos: position, date: position.us, rng: rng(mix(t.cfg.Seed ^ mix(position.tail)))}
	entry := &t.kinds[t.kindIndex[code]]

	// change overrides what fill sets.
	t.fill(&sc, entry)
	change(&sc)
	if sc.user.conn != nil {
		sc.conn = sc.user.conn
	}
	t.add(position, entry.shapes[shapeModern].render(nil, &sc))
}

// add appends an event. Its position must come from now and nextTail under the same
// lock, so that the list stays sorted.
func (t *Tenant) add(p pos, raw []byte) {
	t.nextTail++
	t.others = append(t.others, event{p, raw})
}

// IDs returns every visible log_id in order. It needs at least 56 bytes per event.
func (t *Tenant) IDs() []string {
	v := t.view()
	events := v.all()

	ids := make([]string, 0, events.count())
	for {
		event, ok := events.first()
		if !ok {
			return ids
		}
		ids = append(ids, event.pos.id())
	}
}

// Total returns the number of visible events.
func (t *Tenant) Total() int {
	v := t.view()
	events := v.all()
	return events.count()
}

// Event returns the visible event with a log_id, as the tenant serves it.
func (t *Tenant) Event(id string) ([]byte, bool) {
	v := t.view()
	event, ok := v.find(id)
	if !ok {
		return nil, false
	}
	return v.render(nil, event), true
}

// Call is an endpoint, such as "GET /api/v2/logs", and the status of its response.
// Status 0 is no response or half of one. Endpoint "" is an unknown path.
type Call struct {
	Endpoint string
	Status   int
}

// Stats are counts since New.
type Stats struct {
	Calls  map[Call]int
	Events int64 // events in responses, whole or cut
}

// Stats returns how the tenant was used.
func (t *Tenant) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Stats{maps.Clone(t.calls), t.served}
}

// RevokeTokens invalidates all issued tokens: the signing key gets a new id, and only
// that one is published.
func (t *Tenant) RevokeTokens() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keyEpoch++
}

// SetProbeOutage makes password grants fail with a status (0 = 503), in addition to
// Config.ProbeOutages, until it is called with false.
func (t *Tenant) SetProbeOutage(on bool, status int) {
	t.mu.Lock()
	defer t.mu.Unlock()

	// A second call replaces the first.
	t.outage = nil
	if on {
		t.outage = &status
	}
}
