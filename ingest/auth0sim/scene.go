package auth0sim

// scene holds the facts of one event: who, from where, with which result. It is filled
// from the event's random numbers, then changed by the event's script, then rendered
// by a template.
type scene struct {
	pos    pos
	date   int64 // µs
	rng    rng
	tenant *Config

	user   user
	client *client
	conn   *conn
	agent  *agent
	org    *org
	ip     string

	audience, scope            string
	method, path, channel      string
	operation, message, reason string
	oauthError, errorCode      string
	bucket, family             string
	global, flip               bool
	status, size, usage        int
	elapsed                    int // ms from the start of the flow
}

// operation is a Management API call as sapi names it.
type operation struct{ name, method, path string }

// fill sets everything that a template of this kind may need.
func (t *Tenant) fill(s *scene, k *kindEntry) {
	pools, r := t.pools, &s.rng
	s.tenant = &t.cfg
	s.user = pools.users[r.n(len(pools.users))]
	s.conn = s.user.conn
	s.ip = s.user.ip
	s.agent = &pools.agents[r.n(len(pools.agents))]
	s.client = &pools.clients[r.n(len(pools.clients))]
	s.org = &pools.orgs[r.n(len(pools.orgs))]

	// The defaults of a successful call.
	s.audience = "https://api.example.com/"
	s.scope = "openid profile email offline_access"
	s.elapsed = 40 + r.n(4000)
	s.status, s.reason = 200, "OK"
	s.method, s.path, s.channel = "get", "/api/v2/users", "api"
	s.operation, s.message = "", "The operation did not succeed."
	s.oauthError, s.errorCode = "invalid_request", "invalid_body"
	s.bucket, s.family = "", ""
	s.global, s.flip = false, false
	s.size, s.usage = 0, 0

	t.fillRole(s, k.role)
	if s.user.conn != nil {
		s.conn = s.user.conn
	}
}

// fillRole sets what depends on the role of a kind.
func (t *Tenant) fillRole(s *scene, role role) {
	pools, r := t.pools, &s.rng
	switch role {
	case roleMachine:
		s.client = &pools.machines[r.n(len(pools.machines))]
		s.agent = &pools.robots[r.n(len(pools.robots))]
		s.ip = benchmarkAddr(r.n(64))
		s.user = user{conn: s.conn}
		s.audience, s.scope = "https://"+t.cfg.Domain+"/api/v2/", "read:users update:users read:clients"
		s.message = "Unauthorized"
	case roleAPI:
		op := &t.operations[r.n(len(t.operations))]
		s.operation, s.method, s.path = op.name, op.method, op.path

		if s.method == "post" {
			s.status = 201
		}
		s.client = &pools.machines[r.n(len(pools.machines))]
		s.agent = &pools.robots[r.n(len(pools.robots))]
		s.ip = benchmarkAddr(r.n(64))

		// A person in the dashboard.
		if r.one(4) {
			s.channel = "https://manage.auth0.com/"
			s.agent = &pools.agents[r.n(4)]
			s.client = &client{id: "", name: ""}
		}
	case roleRead:
		s.operation, s.method, s.path = "Get a client", "get", "/api/v2/clients/"+s.client.id
		s.client = &pools.machines[r.n(len(pools.machines))]
	case roleUnknownUser:
		// The name is in no connection.
		s.user.id, s.user.idp = "", ""
		s.user.name = t.typos[r.n(len(t.typos))]
		s.user.email = s.user.name
	case rolePassword:
		s.message = "Wrong email or password."
	case roleLogin:
		fault := &t.loginFaults[r.n(len(t.loginFaults))]
		s.message, s.oauthError = fault.message, fault.oauthError
	case roleLimit:
		s.bucket, s.global, s.size, s.usage = managementBucket, true, 50, 40
		s.message, s.method, s.path, s.status = "Global limit has been reached", "get", "/api/v2/users", 429
	}
}

// loginFault is the error of a failed login.
type loginFault struct{ message, oauthError string }

func loginFaults() []loginFault {
	return []loginFault{
		{"Callback URL mismatch. https://app.example.com/cb is not in the list of allowed callback URLs",
			"unauthorized_client"},
		{"the connection is not enabled", "invalid_request"},
		{"access_denied by a post-login action", "access_denied"},
		{"The identity provider did not answer", "server_error"},
	}
}

func operations() []operation {
	return []operation{
		{"Update a user", "patch", "/api/v2/users/auth0|66f0a1b2c3d4e5f601234567"},
		{"Create a user", "post", "/api/v2/users"},
		{"Delete a user", "delete", "/api/v2/users/auth0|66f0a1b2c3d4e5f601234568"},
		{"Update a client", "patch", "/api/v2/clients/4tQ2xYzR7bNcW0sVhLpKjFgDmEaUoIi1"},
		{"Assign roles to a user", "post", "/api/v2/users/auth0|66f0a1b2c3d4e5f601234567/roles"},
		{"Create an email verification ticket", "post", "/api/v2/tickets/email-verification"},
		{"Update a connection", "patch", "/api/v2/connections/con_QkY3nNf0bXw2Rr7Z"},
		{"Add members to an organization", "post", "/api/v2/organizations/org_Ab3dEf6hIj9lMn2p/members"},
	}
}

func typos() []string {
	return []string{
		"ana@example.con", "admin", "test@test.test", "j.doe@exmaple.com",
		"info@example.org", "root", "b\u00e9la@example.com", "user name with spaces",
	}
}

// role decides how a scene is filled.
type role uint8

const (
	rolePerson role = iota
	roleMachine
	roleAPI
	roleRead
	roleUnknownUser
	rolePassword
	roleLogin
	roleLimit
)

func roleOf(code string) role {
	switch code {
	case "seccft", "feccft":
		return roleMachine
	case "sapi", "fapi":
		return roleAPI
	case "mgmt_api_read":
		return roleRead
	case "fu":
		return roleUnknownUser
	case "fp", "fepft":
		return rolePassword
	case "f":
		return roleLogin
	case "api_limit", "api_limit_warning":
		return roleLimit
	}
	return rolePerson
}

// kindEntry is a compiled kind.
type kindEntry struct {
	code   string
	role   role
	shapes [shapeCount]template
}

// background appends event i of the timeline.
func (t *Tenant) background(b []byte, i int64) []byte {
	sc := t.backgroundScene(i)
	entry := &t.kinds[t.mixture[sc.rng.n(len(t.mixture))]]

	shape := shapeModern
	if t.cfg.Shapes == ShapesMixed {
		entry, shape = t.oddity(&sc.rng, entry)
	}

	// fill draws as well, so this must come before it.
	flip := t.cfg.Shapes == ShapesMixed && sc.rng.one(10)
	t.fill(&sc, entry)
	sc.flip = flip
	return entry.shapes[shape].render(b, &sc)
}

// backgroundScene returns the scene of event i with its times only.
func (t *Tenant) backgroundScene(i int64) scene {
	sc := scene{rng: rng(mix(t.cfg.Seed*0x9e3779b97f4a7c15 + uint64(i)))}
	sc.pos = t.timeline.pos(i)
	sc.date = sc.pos.us - t.lag(&sc.rng)
	return sc
}

// lag returns the time between an event's date and its ingest, in µs: short for most
// events, close to the maximum for a few.
func (t *Tenant) lag(r *rng) int64 {
	most := int(t.cfg.MaxIngestLag.Microseconds())
	if most <= 0 {
		return 0
	}

	// The square of a uniform number.
	draw := float64(r.n(1 << 20))
	return int64(float64(most) * draw * draw / (1 << 40))
}

// oddity returns the shape of a background event, and occasionally another kind.
func (t *Tenant) oddity(r *rng, k *kindEntry) (*kindEntry, int) {
	switch count := r.n(10_000); {
	case count < 800:
		return k, shapeNulls
	case count < 850:
		return k, shapeNoDetail
	case count < 870:
		return k, shapeMobiles
	case count < 875:
		return k, shapeNoID
	case count < 877:
		return k, shapeDateObj
	case count < 897:
		return &t.kinds[t.unknown], shapeModern
	case count < 997:
		// Any type that is not a sign of an attack, so that each occurs in a long log.
		return &t.kinds[t.rare[r.n(len(t.rare))]], shapeModern
	}
	return k, shapeModern
}
