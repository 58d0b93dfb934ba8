package auth0sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// AttackKind is the name of a script.
type AttackKind string

// The scripts, with the events that they write. N is Attack.Events.
const (
	// AttackRateLimit exhausts the Management API's bucket: one
	// api_limit_warning, then N-1 api_limit, the later ones a minute apart.
	AttackRateLimit AttackKind = "rate_limit"
	// AttackAuthRateLimit is the same on the Authentication API.
	AttackAuthRateLimit AttackKind = "auth_rate_limit"
	// AttackStuffing is one IP trying many users: fu, fp and f.
	AttackStuffing AttackKind = "credential_stuffing"
	// AttackBruteForce is one IP trying one user: N-1 fp, then limit_wc.
	AttackBruteForce AttackKind = "brute_force"
	// AttackDistributed is fp and fu, each of another user from another IP.
	AttackDistributed AttackKind = "distributed_failures"
	// AttackPushBombing is N-2 gd_send_pn to one user, then gd_auth_rejected
	// and gd_auth_succeed.
	AttackPushBombing AttackKind = "push_bombing"
	// AttackManagementErrors is one client whose Management calls fail: sapi
	// and mgmt_api_read with details.response.statusCode of 400 and above.
	AttackManagementErrors AttackKind = "management_errors"
	// AttackLegacyManagementErrors is the same as fapi, a type that is no
	// longer documented. Its details are modeled.
	AttackLegacyManagementErrors AttackKind = "legacy_management_errors"
	// AttackSecretGuessing is feccft of one client.
	AttackSecretGuessing AttackKind = "secret_guessing"
	// AttackLeakedPasswords is pwd_leak, each of another user and IP.
	AttackLeakedPasswords AttackKind = "leaked_passwords"
	// AttackSignups is ss from one IP.
	AttackSignups AttackKind = "signup_burst"
	// AttackTokenReuse is ferrt of one user and token family.
	AttackTokenReuse AttackKind = "refresh_token_reuse"
)

// The families of attacks that a set of rules should report.
const (
	FamilyRateLimit      = "rate_limit"
	FamilyAuthentication = "authentication"
	FamilyManagementAPI  = "management_api"
	FamilyAbuse          = "abuse"
)

// Attack is a series of events that a detection should find.
type Attack struct {
	Kind   AttackKind
	At     time.Duration // of the first event, from Anchor; negative = in history
	Events int           // per series; 0 = the default of the kind
	Over   time.Duration // from the first to the last event; 0 = the default of the kind
	Every  time.Duration // between the starts of repeated series
	Times  int           // number of series; 0 = 1, negative = none
}

// Answer describes the events of one series of an attack.
type Answer struct {
	Kind    AttackKind
	Family  string
	GroupBy string   // path of the member that all events share, "" = none
	Group   string   // its value
	Types   []string // event types, sorted
	Events  int
	// Start and End are the first and last date; FirstID and LastID bound
	// the log_ids. Their order may differ, since dates lag behind ids.
	Start, End      time.Time
	FirstID, LastID string
}

// script describes the events of a kind of attack.
type script struct {
	family  string
	groupBy string
	events  int
	over    time.Duration
	// minute says that Auth0 writes at most one event a minute.
	minute bool
	event  eventScript
}

// eventScript returns the type of event k of a series, and changes its scene.
type eventScript func(o *occurrence, k int, s *scene) string

// occurrence is one series. All of its events have the same actors.
type occurrence struct {
	attack Attack
	script script
	number int
	start  int64 // µs
	seed   uint64
	ip     string
	user   user
	client client
	family string
}

// planned is an event of an attack. Everything else about it follows from these.
type planned struct {
	pos        pos
	occurrence int32
	k          int32
}

// scripts returns the script of each kind.
func scripts() map[AttackKind]script {
	return map[AttackKind]script{
		AttackRateLimit: {
			family: FamilyRateLimit, groupBy: "details.limit.bucket", events: 2, over: 5 * time.Second, minute: true,
			event: reachLimit(managementBucket, "get", "/api/v2/users", "Global limit has been reached", 50),
		},
		AttackAuthRateLimit: {
			family: FamilyRateLimit, groupBy: "details.limit.bucket", events: 2, over: 5 * time.Second, minute: true,
			event: reachLimit(authenticationBucket, "post", "/oauth/token",
				"You passed the limit of allowed calls to '/oauth/token'", 100),
		},
		AttackStuffing: {
			family: FamilyAuthentication, groupBy: "ip", events: 80, over: 4 * time.Second,
			event: stuffCredentials,
		},
		AttackBruteForce: {
			family: FamilyAuthentication, groupBy: "user_id", events: 11, over: 30 * time.Second,
			event: bruteForce,
		},
		AttackDistributed: {
			family: FamilyAuthentication, events: 120, over: time.Minute,
			event: failDistributed,
		},
		AttackPushBombing: {
			family: FamilyAbuse, groupBy: "user_id", events: 14, over: 2 * time.Minute,
			event: bombPush,
		},
		AttackManagementErrors: {
			family: FamilyManagementAPI, groupBy: "client_id", events: 20, over: 15 * time.Second,
			event: failManagement,
		},
		AttackLegacyManagementErrors: {
			family: FamilyManagementAPI, groupBy: "client_id", events: 20, over: 15 * time.Second,
			event: failLegacyManagement,
		},
		AttackSecretGuessing: {
			family: FamilyAuthentication, groupBy: "client_id", events: 30, over: 20 * time.Second,
			event: guessSecret,
		},
		AttackLeakedPasswords: {
			family: FamilyAbuse, events: 12, over: 20 * time.Second,
			event: tryLeakedPassword,
		},
		AttackSignups: {
			family: FamilyAbuse, groupBy: "ip", events: 40, over: 20 * time.Second,
			event: signUp,
		},
		AttackTokenReuse: {
			family: FamilyAuthentication, groupBy: "user_id", events: 5, over: 10 * time.Second,
			event: reuseToken,
		},
	}
}

// reachLimit returns a script that warns once, at four fifths of the limit, and then
// reaches it.
func reachLimit(bucket, method, path, message string, size int) eventScript {
	return func(o *occurrence, k int, s *scene) string {
		// A limit is of the tenant, not of a user.
		s.user = user{}
		s.bucket, s.global, s.size, s.method, s.path, s.status = bucket, true, size, method, path, 429
		if k == 0 {
			s.message, s.usage = "Warning! Global limit usage is high", size*4/5
			return "api_limit_warning"
		}
		s.message, s.usage = message, size
		return "api_limit"
	}
}

func stuffCredentials(o *occurrence, k int, s *scene) string {
	s.ip, s.user = o.ip, o.victim(k)

	// Three of ten names are users, one of them blocked.
	switch k % 10 {
	case 3, 7:
		return "fp"
	case 9:
		s.message, s.oauthError = "user is blocked", "unauthorized"
		return "f"
	}

	// Most of the stolen names do not exist here.
	s.user.id, s.user.idp = "", ""
	return "fu"
}

func bruteForce(o *occurrence, k int, s *scene) string {
	s.ip, s.user = o.ip, o.user
	if k == o.attack.Events-1 {
		return "limit_wc"
	}
	return "fp"
}

func failDistributed(o *occurrence, k int, s *scene) string {
	s.user = o.victim(k)

	// Each from another address of the shared address space.
	s.ip = fmt.Sprintf("100.%d.%d.%d", 64+o.number%64, k>>8&255, k&255)
	if k%3 == 0 {
		s.user.id, s.user.idp = "", ""
		return "fu"
	}
	return "fp"
}

func bombPush(o *occurrence, k int, s *scene) string {
	s.ip, s.user = o.ip, o.user

	// The user rejects one prompt and accepts the last.
	switch k {
	case o.attack.Events - 2:
		return "gd_auth_rejected"
	case o.attack.Events - 1:
		return "gd_auth_succeed"
	}
	return "gd_send_pn"
}

func failManagement(o *occurrence, k int, s *scene) string {
	s.ip, s.client = o.ip, &o.client
	if k%5 == 4 {
		s.operation, s.method, s.path = "Get a client", "get", "/api/v2/clients/"+o.client.id
		s.refuse()
		return "mgmt_api_read:error"
	}

	s.operation, s.method, s.path = "Update a user", "patch", "/api/v2/users/"+s.user.id
	s.refuse()
	return "sapi:error"
}

func failLegacyManagement(o *occurrence, k int, s *scene) string {
	s.ip, s.client = o.ip, &o.client
	s.operation, s.method, s.path = "Update a user", "patch", "/api/v2/users/"+s.user.id
	s.refuse()
	return "fapi"
}

func guessSecret(o *occurrence, k int, s *scene) string {
	s.ip, s.client = o.ip, &o.client
	s.message, s.user = "Unauthorized", user{conn: s.conn}
	return "feccft"
}

func tryLeakedPassword(o *occurrence, k int, s *scene) string {
	s.user = o.victim(k)
	s.ip = fmt.Sprintf("100.%d.%d.%d", 64+o.number%64, 128+k>>8&127, k&255)
	return "pwd_leak"
}

func signUp(o *occurrence, k int, s *scene) string {
	s.ip, s.user = o.ip, o.victim(k)
	return "ss"
}

func reuseToken(o *occurrence, k int, s *scene) string {
	s.ip, s.user, s.family = o.ip, o.user, o.family
	return "ferrt"
}

// refuse sets the error of a Management API call.
func (s *scene) refuse() {
	// One of the usual errors, at random.
	failure := apiErrors()[s.rng.n(len(apiErrors()))]
	s.status, s.reason, s.errorCode, s.message = failure.status, failure.reason, failure.code, failure.message
	s.channel = "api"
}

// apiError is an error of the Management API.
type apiError struct {
	status                int
	reason, code, message string
}

func apiErrors() []apiError {
	return []apiError{
		{400, "Bad Request", "invalid_body",
			"Payload validation error: 'Expected type string but found type number' on property email"},
		{403, "Forbidden", "insufficient_scope", "Insufficient scope, expected any of: update:users"},
		{404, "Not Found", "inexistent_user", "The user does not exist."},
		{409, "Conflict", "user_exists", "The user already exists."},
		{500, "Internal Server Error", "internal_error", "An internal server error occurred"},
		{503, "Service Unavailable", "service_unavailable", "The service is not available"},
	}
}

// victim returns the user of event k in a series with many users.
func (o *occurrence) victim(k int) user {
	random := rng(mix(o.seed + uint64(k)*977))
	return newVictim(&random, o.user.conn)
}

func newVictim(r *rng, c *conn) user {
	idp := string(r.text(nil, 24, hexDigits))
	mail := "victim." + idp[:10] + "@example.net"
	return user{id: "auth0|" + idp, idp: idp, name: mail, email: mail, conn: c}
}

// plan lays out the events and the answers of all series. It panics on an unknown kind,
// which is a mistake in the caller's script.
func (t *Tenant) plan() {
	all := scripts()
	for i, attack := range t.cfg.Attacks {
		script, ok := all[attack.Kind]
		if !ok {
			panic(fmt.Sprintf("auth0sim: no attack %q", attack.Kind))
		}

		attack = attack.withDefaults(script)
		for count := range max(attack.Times, 0) {
			t.planSeries(attack, script, i, count)
		}
	}

	// Above every planned event.
	t.nextTail = otherTail + 1<<36
	slices.SortFunc(t.planned, func(a, b planned) int { return a.pos.compare(b.pos) })
	slices.SortStableFunc(t.answers, func(a, b Answer) int { return cmp.Compare(a.FirstID, b.FirstID) })
}

// withDefaults returns the attack with empty fields set to the defaults of its script.
func (a Attack) withDefaults(script script) Attack {
	if a.Events <= 0 {
		a.Events = script.events
	}
	if a.Over <= 0 {
		a.Over = script.over
		if script.minute && a.Events > 2 {
			a.Over += time.Duration(a.Events-2) * time.Minute
		}
	}
	if a.Times == 0 {
		a.Times = 1
	}
	return a
}

// planSeries lays out series n of attack i. Everything follows from these two numbers
// and the seed, so that attacks can be added, or repeated more often, without a change
// to the existing ones.
func (t *Tenant) planSeries(attack Attack, script script, i, n int) {
	number := len(t.occurrences)
	series := occurrence{
		attack: attack,
		script: script,
		number: i*31 + n,
		start:  micros(t.cfg.Anchor.Add(attack.At + time.Duration(n)*attack.Every)),
		seed:   mix(t.cfg.Seed ^ mix(uint64(i)<<32+uint64(n)+0xa77ac4)),
	}

	// Each of these draws from the random numbers, so their order is fixed.
	random := rng(series.seed)
	series.user = newVictim(&random, &t.pools.conns[0])
	series.client = client{id: string(random.text(nil, 32, b62Digits[:62])), name: "Rogue Script"}
	series.family = string(random.text(nil, 24, b62Digits[:62]))
	series.ip = fmt.Sprintf(network(attack.Kind), 1+series.number%254)
	t.occurrences = append(t.occurrences, series)

	for k := range attack.Events {
		// Attacks, series and events have separate bits of the counter.
		tail := otherTail + uint64(i)<<24 + uint64(n)<<12 + uint64(k)
		t.planned = append(t.planned, planned{pos{series.at(k), tail}, int32(number), int32(k)})
	}
	events := t.planned[len(t.planned)-attack.Events:]
	t.answers = append(t.answers, t.answer(&t.occurrences[number], events))
}

// network returns the format of an attacker's address, in a documentation network.
func network(kind AttackKind) string {
	switch kind {
	case AttackStuffing:
		return "203.0.113.%d"
	case AttackBruteForce:
		return "198.51.100.%d"
	}
	return "192.0.2.%d"
}

// at returns the time of event k in µs.
func (o *occurrence) at(k int) int64 {
	over := o.attack.Over.Microseconds()
	if o.attack.Events == 1 {
		return o.start
	}
	if o.script.minute && o.attack.Events > 2 && k > 0 {
		// The warning, shortly after it the first limit, then one a minute.
		minutes := int64(o.attack.Events - 2)
		step := min(over/(minutes+1), 60_000_000)
		return o.start + over - (minutes-int64(k-1))*step
	}
	return o.start + over*int64(k)/int64(o.attack.Events-1)
}

// answer describes the events of a series.
func (t *Tenant) answer(o *occurrence, events []planned) Answer {
	answer := Answer{
		Kind:    o.attack.Kind,
		Family:  o.script.family,
		GroupBy: o.script.groupBy,
		Events:  len(events),
		FirstID: events[0].pos.id(),
		LastID:  events[len(events)-1].pos.id(),
	}

	for i, event := range events {
		sc, key := t.plannedScene(o, event)
		code := t.kinds[t.kindIndex[key]].code
		if !slices.Contains(answer.Types, code) {
			answer.Types = append(answer.Types, code)
		}

		// Dates are out of order, so the first need not be the earliest.
		date := time.UnixMicro(sc.date).UTC().Truncate(time.Millisecond)
		if i == 0 || date.Before(answer.Start) {
			answer.Start = date
		}
		if i == 0 || date.After(answer.End) {
			answer.End = date
		}

		switch answer.GroupBy {
		case "ip":
			answer.Group = sc.ip
		case "user_id":
			answer.Group = sc.user.id
		case "client_id":
			answer.Group = sc.client.id
		case "details.limit.bucket":
			answer.Group = sc.bucket
		}
	}
	slices.Sort(answer.Types)
	return answer
}

// plannedScene returns the scene of an attack's event and the key of its kind.
func (t *Tenant) plannedScene(o *occurrence, e planned) (scene, string) {
	sc := scene{pos: e.pos, rng: rng(mix(o.seed ^ mix(uint64(e.k)+1)))}
	sc.date = sc.pos.us - t.lag(&sc.rng)

	// The script returns the kind, but its changes must override those of the kind.
	// So run it on a draft first, then fill the scene, then run it again.
	draft := sc
	t.fill(&draft, &t.kinds[0])
	code := o.script.event(o, int(e.k), &draft)

	// A connection that is set afterwards was set by the script.
	t.fill(&sc, &t.kinds[t.kindIndex[code]])
	sc.user.conn = nil
	o.script.event(o, int(e.k), &sc)
	if sc.user.conn != nil {
		sc.conn = sc.user.conn
	}
	return sc, code
}

func (t *Tenant) renderPlanned(b []byte, e planned) []byte {
	sc, code := t.plannedScene(&t.occurrences[e.occurrence], e)
	return t.kinds[t.kindIndex[code]].shapes[shapeModern].render(b, &sc)
}

// Answers describes the events of all attacks, past and future, in the order of their
// first log_id.
func (t *Tenant) Answers() []Answer {
	// Callers may change what they get.
	out := slices.Clone(t.answers)
	for i := range out {
		out[i].Types = slices.Clone(out[i].Types)
	}
	return out
}

// DemoAttacks returns attacks of every family in the first 25 s after Anchor, repeated
// every few minutes for a day.
func DemoAttacks() []Attack {
	daily := func(every time.Duration) int { return int(24 * time.Hour / every) }
	show := func(kind AttackKind, at, every time.Duration, events int, over time.Duration) Attack {
		return Attack{Kind: kind, At: at, Every: every, Times: daily(every), Events: events, Over: over}
	}
	return []Attack{
		show(AttackStuffing, 4*time.Second, 4*time.Minute, 90, 5*time.Second),
		show(AttackRateLimit, 6*time.Second, 5*time.Minute, 3, 0),
		show(AttackManagementErrors, 8*time.Second, 5*time.Minute, 24, 10*time.Second),
		show(AttackBruteForce, 10*time.Second, 6*time.Minute, 11, 12*time.Second),
		show(AttackAuthRateLimit, 14*time.Second, 7*time.Minute, 2, 4*time.Second),
		show(AttackSecretGuessing, 45*time.Second, 8*time.Minute, 30, 20*time.Second),
		show(AttackPushBombing, 75*time.Second, 9*time.Minute, 14, 90*time.Second),
		show(AttackTokenReuse, 100*time.Second, 10*time.Minute, 5, 10*time.Second),
		show(AttackLeakedPasswords, 2*time.Minute, 12*time.Minute, 12, 20*time.Second),
		show(AttackSignups, 150*time.Second, 11*time.Minute, 40, 20*time.Second),
		show(AttackDistributed, 3*time.Minute, 15*time.Minute, 120, time.Minute),
	}
}

// DemoOutages returns outages of the probe from 12 s to 27 s after Anchor, repeated
// every five minutes for a day.
func DemoOutages() []Outage {
	var out []Outage
	for at := 12 * time.Second; at < 24*time.Hour; at += 5 * time.Minute {
		out = append(out, Outage{From: at, To: at + 15*time.Second, Status: 503})
	}
	return out
}
