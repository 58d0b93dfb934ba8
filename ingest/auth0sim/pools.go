package auth0sim

import (
	"fmt"
	"net/netip"
	"strings"
)

// The people, applications, connections and devices of the tenant. All texts are escaped
// for JSON.
type (
	user struct {
		id, idp, name, email string
		ip                   string
		conn                 *conn
	}
	client struct{ id, name string }
	conn   struct{ id, name, strategy, kind string }
	agent  struct {
		parsed, raw string
		mobile      bool
	}
	org struct{ id, name string }
)

// pools are the values that events draw from.
type pools struct {
	users    []user
	clients  []client // for logins of people
	machines []client // for client credentials
	conns    []conn
	agents   []agent
	robots   []agent // user agents of programs
	orgs     []org
}

const userCount = 2000

func newPools(seed uint64) *pools {
	p := &pools{
		conns: []conn{
			{"con_QkY3nNf0bXw2Rr7Z", "Username-Password-Authentication", "auth0", "database"},
			{"con_9uWq4LcmV1sPzT6e", "google-oauth2", "google-oauth2", "social"},
			{"con_F2hJx8yKd5gAoU3i", "acme-corp-saml", "samlp", "enterprise"},
			{"con_M7bE0tRvCn6jYwSl", "acme-azure-ad", "waad", "enterprise"},
		},
		agents: []agent{
			{"Chrome 129.0.0 / Windows 10.0.0", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36", false},
			{"Chrome 128.0.0 / Mac OS X 10.15.7", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36", false},
			{"Safari 17.5.0 / Mac OS X 10.15.7", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15", false},
			{"Firefox 130.0.0 / Ubuntu 0.0.0", "Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0", false},
			{"Edge 129.0.0 / Windows 10.0.0", "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36 Edg/129.0.0.0", false},
			{"Mobile Safari 17.6.0 / iOS 17.6.1", "Mozilla/5.0 (iPhone; CPU iPhone OS 17_6_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.6 Mobile/15E148 Safari/604.1", true},
			{"Chrome Mobile 129.0.0 / Android 10.0.0", "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Mobile Safari/537.36", true},
			{"Samsung Internet 26.0.0 / Android 13.0.0", "Mozilla/5.0 (Linux; Android 13; SM-S911B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/26.0 Chrome/122.0.0.0 Mobile Safari/537.36", true},
		},
		robots: []agent{
			{"Other 0.0.0 / Other 0.0.0", "Go-Auth0/1.22.0", false},
			{"Other 0.0.0 / Linux 6.1.0", "node-auth0/4.10.0 (Node 20.17.0)", false},
			{"Python Requests 2.32.0 / Other 0.0.0", "python-requests/2.32.3", false},
			{"Other 0.0.0 / Other 0.0.0", "Terraform/1.9.5 (+https://www.terraform.io) terraform-provider-auth0/1.6.0", false},
		},
	}
	random := rng(mix(seed ^ 0x706f6f6c))
	p.addApplications(&random)
	p.addUsers(&random)
	return p
}

// addApplications adds the clients, machines and organizations.
func (p *pools) addApplications(r *rng) {
	for _, name := range []string{
		"Web Shop", "Customer Portal", "iOS App", "Android App",
		"Partner Portal", "Help Center", "Back Office", "Caf\u00e9 Kiosk",
	} {
		p.clients = append(p.clients, client{string(r.text(nil, 32, b62Digits[:62])), name})
	}
	for _, name := range []string{
		"Billing Worker", "CRM Sync", "Terraform", "Data Warehouse", "Mailer", "Inventory Service",
	} {
		p.machines = append(p.machines, client{string(r.text(nil, 32, b62Digits[:62])), name})
	}
	for _, name := range []string{"globex", "initech", "umbrella", "hooli", "stark", "wayne"} {
		p.orgs = append(p.orgs, org{"org_" + string(r.text(nil, 16, b62Digits[:62])), name})
	}
}

// addUsers adds the users.
func (p *pools) addUsers(r *rng) {
	// Events carry what users typed: letters beyond ASCII, an escaped quote and an escape
	// sequence are among the names on purpose.
	given := []string{"anna", "ben", "carla", "dmitri", "elena", "farid", "grace", "hiro", "ines", "jan", "kofi", "lena",
		"mia", "noah", "olga", "pablo", "quinn", "rosa", "sam", "tariq", "uma", "viktor", "wei", "zo\u00eb", "j\\u00fcrgen", "o\\\"neil"}
	family := []string{"abbott", "berg", "costa", "diaz", "ek", "fischer", "garc\u00eda", "haas", "ito", "jones", "khan", "lind",
		"m\u00fcller", "novak", "okafor", "petrov", "rossi", "silva", "tanaka", "weber"}
	mails := []string{"example.com", "example.org", "mail.example.net", "corp.example.com"}
	ascii := strings.NewReplacer("\u00eb", "e", "\\u00fc", "u", "\\\"", "", "\u00ed", "i", "\u00fc", "u")

	for i := range userCount {
		first, last := given[r.n(len(given))], family[r.n(len(family))]
		domain := mails[r.n(len(mails))]
		mail := fmt.Sprintf("%s.%s%d@%s", ascii.Replace(first), ascii.Replace(last), i, domain)
		p.users = append(p.users, p.newUser(r, mail, first+" "+last))
	}
}

// newUser returns a user with a connection, a name and an address.
func (p *pools) newUser(r *rng, mail, name string) user {
	person := user{email: mail, name: mail}
	switch k := r.n(10); {
	case k < 6:
		person.conn, person.idp = &p.conns[0], string(r.text(nil, 24, hexDigits))
	case k < 9:
		person.conn, person.idp = &p.conns[1], "1"+string(r.text(nil, 20, "0123456789"))
	default:
		person.conn, person.idp = &p.conns[2+r.n(2)], person.email
	}

	person.id = person.conn.strategy + "|" + person.idp
	if person.conn.kind == "enterprise" {
		person.id = person.conn.strategy + "|" + person.conn.name + "|" + person.idp
	}
	if r.one(4) {
		person.name = name
	}

	// Some have an IPv6 address.
	person.ip = benchmarkAddr(r.n(1 << 17))
	if r.one(8) {
		person.ip = fmt.Sprintf("2001:db8:%x:%x::%x", r.n(1<<16), r.n(1<<16), 1+r.n(1<<16-1))
	}
	return person
}

// benchmarkAddr returns address n of 198.18.0.0/15, which is reserved for benchmarks.
// Attackers use the documentation networks, so that no background event shares their
// address.
func benchmarkAddr(n int) string {
	return netip.AddrFrom4([4]byte{198, byte(18 + n>>16&1), byte(n >> 8), byte(n)}).String()
}
