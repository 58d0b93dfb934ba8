package auth0sim

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// AttackKind names a script.
type AttackKind string

// The scripts, with what they write. N is Attack.Events.
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
	// AttackLegacyManagementErrors is the same as fapi, a type that the
	// documentation no longer lists. Its details are modelled.
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

// Families group attacks by what a rule set should call them.
const (
	FamilyRateLimit      = "rate_limit"
	FamilyAuthentication = "authentication"
	FamilyManagementAPI  = "management_api"
	FamilyAbuse          = "abuse"
)

// An Attack is a series of events that a detection should find.
type Attack struct {
	Kind   AttackKind
	At     time.Duration // of the first event, from Anchor; negative = in history
	Events int           // per series; 0 = what the kind usually has
	Over   time.Duration // from the first to the last event; 0 = as usual
	Every  time.Duration // between the starts of repeated series
	Times  int           // number of series; 0 = 1, negative = none
}

// An Answer is what one series of an attack put into the log.
type Answer struct {
	Kind    AttackKind
	Family  string
	GroupBy string   // path of the member all events share, "" = none
	Group   string   // its value
	Types   []string // event types, sorted
	Events  int
	// Start and End are the first and last date; FirstID and LastID bound
	// the log_ids. Their order may differ, since dates lag behind ids.
	Start, End      time.Time
	FirstID, LastID string
}

// A script is what a kind of attack writes.
type script struct {
	family  string
	groupBy string
	events  int
	over    time.Duration
	// minute is set where Auth0 writes at most one event a minute.
	minute bool
	// event gives the type of event k of n, and changes its scene.
	event func(o *occurrence, k int, s *scene) string
}

// An occurrence is one series. Its actors are the same in all of its events.
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

// A planned event belongs to an attack; everything else about it follows.
type planned struct {
	pos        pos
	occurrence int32
	k          int32
}

func scripts() map[AttackKind]script {
	limit := func(bucket, method, path, warning, message string, size int) func(*occurrence, int, *scene) string {
		return func(o *occurrence, k int, s *scene) string {
			s.user = user{}
			s.bucket, s.global, s.size, s.method, s.path, s.status = bucket, true, size, method, path, 429
			s.message, s.usage = warning, size*4/5
			if k == 0 {
				return "api_limit_warning"
			}
			s.message, s.usage = message, size
			return "api_limit"
		}
	}
	refused := func(s *scene) {
		e := apiErrors()[s.rng.n(len(apiErrors()))]
		s.status, s.reason, s.errorCode, s.message = e.status, e.reason, e.code, e.message
		s.channel = "api"
	}
	return map[AttackKind]script{
		AttackRateLimit: {family: FamilyRateLimit, groupBy: "details.limit.bucket", events: 2, over: 5 * time.Second, minute: true,
			event: limit(managementBucket, "get", "/api/v2/users", "Warning! Global limit usage is high", "Global limit has been reached", 50)},
		AttackAuthRateLimit: {family: FamilyRateLimit, groupBy: "details.limit.bucket", events: 2, over: 5 * time.Second, minute: true,
			event: limit(authenticationBucket, "post", "/oauth/token", "Warning! Global limit usage is high", "You passed the limit of allowed calls to '/oauth/token'", 100)},
		AttackStuffing: {family: FamilyAuthentication, groupBy: "ip", events: 80, over: 4 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.user = o.ip, o.victim(k)
				switch k % 10 {
				case 3, 7:
					return "fp"
				case 9:
					s.message, s.oauthError = "user is blocked", "unauthorized"
					return "f"
				}
				s.user.id, s.user.idp = "", ""
				return "fu"
			}},
		AttackBruteForce: {family: FamilyAuthentication, groupBy: "user_id", events: 11, over: 30 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.user = o.ip, o.user
				if k == o.attack.Events-1 {
					return "limit_wc"
				}
				return "fp"
			}},
		AttackDistributed: {family: FamilyAuthentication, events: 120, over: time.Minute,
			event: func(o *occurrence, k int, s *scene) string {
				s.user = o.victim(k)
				s.ip = fmt.Sprintf("100.%d.%d.%d", 64+o.number%64, k>>8&255, k&255)
				if k%3 == 0 {
					s.user.id, s.user.idp = "", ""
					return "fu"
				}
				return "fp"
			}},
		AttackPushBombing: {family: FamilyAbuse, groupBy: "user_id", events: 14, over: 2 * time.Minute,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.user = o.ip, o.user
				switch k {
				case o.attack.Events - 2:
					return "gd_auth_rejected"
				case o.attack.Events - 1:
					return "gd_auth_succeed"
				}
				return "gd_send_pn"
			}},
		AttackManagementErrors: {family: FamilyManagementAPI, groupBy: "client_id", events: 20, over: 15 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.client = o.ip, &o.client
				if k%5 == 4 {
					s.operation, s.method, s.path = "Get a client", "get", "/api/v2/clients/"+o.client.id
					refused(s)
					return "mgmt_api_read:error"
				}
				s.operation, s.method, s.path = "Update a user", "patch", "/api/v2/users/"+s.user.id
				refused(s)
				return "sapi:error"
			}},
		AttackLegacyManagementErrors: {family: FamilyManagementAPI, groupBy: "client_id", events: 20, over: 15 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.client = o.ip, &o.client
				s.operation, s.method, s.path = "Update a user", "patch", "/api/v2/users/"+s.user.id
				refused(s)
				return "fapi"
			}},
		AttackSecretGuessing: {family: FamilyAuthentication, groupBy: "client_id", events: 30, over: 20 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.client = o.ip, &o.client
				s.message, s.user = "Unauthorized", user{conn: s.conn}
				return "feccft"
			}},
		AttackLeakedPasswords: {family: FamilyAbuse, events: 12, over: 20 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.user = o.victim(k)
				s.ip = fmt.Sprintf("100.%d.%d.%d", 64+o.number%64, 128+k>>8&127, k&255)
				return "pwd_leak"
			}},
		AttackSignups: {family: FamilyAbuse, groupBy: "ip", events: 40, over: 20 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.user = o.ip, o.victim(k)
				return "ss"
			}},
		AttackTokenReuse: {family: FamilyAuthentication, groupBy: "user_id", events: 5, over: 10 * time.Second,
			event: func(o *occurrence, k int, s *scene) string {
				s.ip, s.user, s.family = o.ip, o.user, o.family
				return "ferrt"
			}},
	}
}

type apiError struct {
	status                int
	reason, code, message string
}

func apiErrors() []apiError {
	return []apiError{
		{400, "Bad Request", "invalid_body", "Payload validation error: 'Expected type string but found type number' on property email"},
		{403, "Forbidden", "insufficient_scope", "Insufficient scope, expected any of: update:users"},
		{404, "Not Found", "inexistent_user", "The user does not exist."},
		{409, "Conflict", "user_exists", "The user already exists."},
		{500, "Internal Server Error", "internal_error", "An internal server error occurred"},
		{503, "Service Unavailable", "service_unavailable", "The service is not available"},
	}
}

// victim is the user of event k in a series that goes through many.
func (o *occurrence) victim(k int) user {
	r := rng(mix(o.seed + uint64(k)*977))
	return newVictim(&r, o.user.conn)
}

func newVictim(r *rng, c *conn) user {
	idp := string(r.text(nil, 24, hexDigits))
	mail := "victim." + idp[:10] + "@example.net"
	return user{id: "auth0|" + idp, idp: idp, name: mail, email: mail, conn: c}
}

// plan lays out all series and says what they hold. An attack of an unknown kind
// is a mistake in the caller's script, hence the panic.
func (t *Tenant) plan() {
	all := scripts()
	nets := map[AttackKind]string{AttackStuffing: "203.0.113.%d", AttackBruteForce: "198.51.100.%d"}
	for i, a := range t.cfg.Attacks {
		sc, ok := all[a.Kind]
		if !ok {
			panic(fmt.Sprintf("auth0sim: no attack %q", a.Kind))
		}
		if a.Events <= 0 {
			a.Events = sc.events
		}
		if a.Over <= 0 {
			a.Over = sc.over
			if sc.minute && a.Events > 2 {
				a.Over += time.Duration(a.Events-2) * time.Minute
			}
		}
		if a.Times == 0 {
			a.Times = 1
		}
		for n := range max(a.Times, 0) {
			number := len(t.occurrences)
			// Everything follows from the attack's place in the script and the
			// series' number, so that attacks can be added and repeated more
			// often without a change to what is there.
			o := occurrence{attack: a, script: sc, number: i*31 + n,
				start: micros(t.cfg.Anchor.Add(a.At + time.Duration(n)*a.Every)),
				seed:  mix(t.cfg.Seed ^ mix(uint64(i)<<32+uint64(n)+0xa77ac4))}
			r := rng(o.seed)
			o.user = newVictim(&r, &t.pools.conns[0])
			o.client = client{id: string(r.text(nil, 32, b62Digits[:62])), name: "Rogue Script"}
			o.family = string(r.text(nil, 24, b62Digits[:62]))
			net := nets[a.Kind]
			if net == "" {
				net = "192.0.2.%d"
			}
			o.ip = fmt.Sprintf(net, 1+o.number%254)
			t.occurrences = append(t.occurrences, o)
			for k := range a.Events {
				tail := otherTail + uint64(i)<<24 + uint64(n)<<12 + uint64(k)
				t.planned = append(t.planned, planned{pos{o.at(k), tail}, int32(number), int32(k)})
			}
			t.answers = append(t.answers, t.answer(&t.occurrences[number], t.planned[len(t.planned)-a.Events:]))
		}
	}
	t.nextTail = otherTail + 1<<36
	slices.SortFunc(t.planned, func(a, b planned) int { return a.pos.compare(b.pos) })
	slices.SortStableFunc(t.answers, func(a, b Answer) int { return cmp.Compare(a.FirstID, b.FirstID) })
}

// at is the time of event k in µs.
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

func (t *Tenant) answer(o *occurrence, events []planned) Answer {
	a := Answer{Kind: o.attack.Kind, Family: o.script.family, GroupBy: o.script.groupBy, Events: len(events),
		FirstID: events[0].pos.id(), LastID: events[len(events)-1].pos.id()}
	for i, e := range events {
		s, code := t.plannedScene(o, e)
		if !slices.Contains(a.Types, t.kinds[t.kindIndex[code]].code) {
			a.Types = append(a.Types, t.kinds[t.kindIndex[code]].code)
		}
		date := time.UnixMicro(s.date).UTC().Truncate(time.Millisecond)
		if i == 0 || date.Before(a.Start) {
			a.Start = date
		}
		if i == 0 || date.After(a.End) {
			a.End = date
		}
		switch a.GroupBy {
		case "ip":
			a.Group = s.ip
		case "user_id":
			a.Group = s.user.id
		case "client_id":
			a.Group = s.client.id
		case "details.limit.bucket":
			a.Group = s.bucket
		}
	}
	slices.Sort(a.Types)
	return a
}

// plannedScene is the scene of an attack's event and the key of its kind.
func (t *Tenant) plannedScene(o *occurrence, e planned) (scene, string) {
	s := scene{pos: e.pos, rng: rng(mix(o.seed ^ mix(uint64(e.k)+1)))}
	s.date = s.pos.us - t.lag(&s.rng)
	// The script names the kind, but what it changes must win over what the
	// kind fills in: ask for the kind first, then fill, then script.
	draft := s
	t.fill(&draft, &t.kinds[0])
	code := o.script.event(o, int(e.k), &draft)
	t.fill(&s, &t.kinds[t.kindIndex[code]])
	s.user.conn = nil
	o.script.event(o, int(e.k), &s)
	if s.user.conn != nil {
		s.conn = s.user.conn
	}
	return s, code
}

func (t *Tenant) renderPlanned(b []byte, e planned) []byte {
	s, code := t.plannedScene(&t.occurrences[e.occurrence], e)
	return t.kinds[t.kindIndex[code]].shapes[shapeModern].render(b, &s)
}

// Answers is what the attacks put into the log, past and future, in the order of
// their first log_id.
func (t *Tenant) Answers() []Answer {
	out := slices.Clone(t.answers)
	for i := range out {
		out[i].Types = slices.Clone(out[i].Types)
	}
	return out
}

// DemoAttacks shows every family within 25 s after Anchor and returns every few
// minutes for a day.
func DemoAttacks() []Attack {
	daily := func(every time.Duration) int { return int(24 * time.Hour / every) }
	show := func(k AttackKind, at, every time.Duration, events int, over time.Duration) Attack {
		return Attack{Kind: k, At: at, Every: every, Times: daily(every), Events: events, Over: over}
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

// DemoOutages lets the probe fail from 12 s to 27 s after Anchor and again every
// five minutes for a day.
func DemoOutages() []Outage {
	var out []Outage
	for at := 12 * time.Second; at < 24*time.Hour; at += 5 * time.Minute {
		out = append(out, Outage{From: at, To: at + 15*time.Second, Status: 503})
	}
	return out
}
