package auth0sim

import (
	"slices"
	"strings"
)

// A kind is one type of event: the groups of top-level fields it has and its
// details. desc, details and extra are template text.
type kind struct {
	code    string
	desc    string
	fields  string // names of groups, see groups
	details string // "" = the event has none
	extra   string // further top-level members, each with a comma in front
	variant string // names a second form of the same type; "" = the usual one
}

// The shapes an event comes in.
const (
	shapeModern   = iota // since 2024: null members are left out
	shapeNulls           // 2023: members without a value are null, no tenant_name
	shapeNoID            // without _id
	shapeDateObj         // date is an object
	shapeNoDetail        // details is null
	shapeMobiles         // is_mobile and isMobile
	shapeCount
)

// catalog is every type the tenant can produce: those with a published schema,
// and a few that are only documented or retired.
func catalog() []kind {
	return slices.Concat(loginKinds(), tokenKinds(), mfaKinds(), otherKinds())
}

// group is a set of top-level members that come together.
type group struct{ name, text, nulls string }

// groups are in the order in which members are written. nulls is what the 2023
// shape writes where an event has no such group.
func groups(array bool) []group {
	scopes := `,"scope":<scopes:0>`
	if array {
		scopes = `,"scope":<scopes:1>`
	}
	return []group{
		{"conn", `,"connection":"<conn>","connection_id":"<conn_id>"`, `,"connection":null,"connection_id":null`},
		{"org", `,"organization_id":"<org_id>","organization_name":"<org_name>"`, `,"organization_id":null,"organization_name":null`},
		{"client", `,"client_id":"<client_id>","client_name":"<client_name>"`, `,"client_id":null,"client_name":""`},
		{"ip", `,"ip":"<ip>"`, ""},
		{"clientip", `,"client_ip":"<ip>"`, ""},
		{"host", `,"hostname":"<host>"`, `,"hostname":null`},
		{"user", `,"user_id":"<user_id>","user_name":"<user_name>"`, `,"user_id":null,"user_name":null`},
		{"idp", `,"identity_user_id":"<idp_id>"`, ""},
		{"aud", `,"audience":"<audience>"`, `,"audience":null`},
		{"scope", scopes, ""},
		{"strategy", `,"strategy":"<strategy>","strategy_type":"<strategy_type>"`, `,"strategy":null,"strategy_type":null`},
		{"sec", `,"security_context":{"ja3":"<hex:32>","ja4":"t13d1516h2_<hex:12>_<hex:12>"}`, ""},
		{"refs", `,"references":{"correlation_id":"<hex:32>","trace_id":"<hex:32>"}`, ""},
		{"sdk", `,"auth0_client":{"name":"auth0-spa-js","version":"2.1.<int:0:9>","env":{"browser":"yes"}}`, ""},
		{"sessconn", `,"session_connection":"<conn>"`, ""},
		{"link", `,"transaction_linking_id":"<b62:27>"`, ""},
		{"track", `,"tracking_id":"<b62:20>"`, ""},
	}
}

// templates compiles the kind in every shape.
func (k kind) templates(names map[string]slot) [shapeCount]template {
	has := make(map[string]bool)
	for _, f := range strings.Fields(k.fields) {
		has[f] = true
	}
	var members, withNulls strings.Builder
	for _, g := range groups(k.code == "f" || k.code == "fsa") {
		if has[g.name] {
			members.WriteString(g.text)
			if g.name != "sec" && g.name != "refs" && g.name != "sdk" {
				withNulls.WriteString(g.text)
			}
			continue
		}
		withNulls.WriteString(g.nulls)
	}
	members.WriteString(k.extra)
	withNulls.WriteString(k.extra)

	const (
		date    = `{"date":"<date>"`
		ids     = `,"_id":"<id>","log_id":"<id>"`
		modern  = `,"tenant_name":"<tenant>","environment_name":"<env>","$event_schema":{"version":"1.0.0"}`
		mobile  = `,"isMobile":<mobile>`
		browser = `,"user_agent":"<ua>"}`
	)
	name := `,"type":"` + k.code + `","description":"` + k.desc + `"`
	details, nullDetails := "", `,"details":null`
	if k.details != "" {
		details = `,"details":` + k.details
	}
	detailsOrNull := details
	if details == "" {
		detailsOrNull = nullDetails
	}
	m := members.String()
	sources := [shapeCount]string{
		shapeModern:   date + name + m + details + ids + modern + mobile + browser,
		shapeNulls:    `{"_id":"<id>","log_id":"<id>","date":"<date>"` + name + withNulls.String() + detailsOrNull + `,"location_info":null` + mobile + browser,
		shapeNoID:     date + name + m + details + `,"log_id":"<id>"` + modern + mobile + browser,
		shapeDateObj:  `{"date":{"$date":"<date>"}` + name + m + details + ids + modern + mobile + browser,
		shapeNoDetail: date + name + m + nullDetails + ids + modern + mobile + browser,
		shapeMobiles:  date + name + m + details + ids + modern + `,"is_mobile":<mobile>` + mobile + browser,
	}
	var out [shapeCount]template
	for i, src := range sources {
		out[i] = compile(src, names)
	}
	return out
}

// A weight is how often a type occurs among 1,024 background events.
type weight struct {
	code string
	n    int
}

// weights resemble a tenant whose users mostly hold refresh tokens. Rate limits,
// refused Management calls and attack protection are left out: those come from
// attacks, whose answers stay exact that way.
func weights() []weight {
	return []weight{
		{"sertft", 233}, {"seacft", 172}, {"s", 150}, {"seccft", 108}, {"ssa", 62}, {"sapi", 56},
		{"slo", 45}, {"fsa", 40}, {"fp", 26}, {"gd_auth_succeed", 18}, {"gd_send_pn", 14},
		{"gd_start_auth", 12}, {"f", 10}, {"fu", 9}, {"ss", 9}, {"fertft", 8}, {"mgmt_api_read", 7},
		{"sepft", 6}, {"gd_send_sms", 5}, {"scpr", 4}, {"sv", 3}, {"svr", 3}, {"scp", 2}, {"scoa", 2},
		{"gd_auth_failed", 2}, {"feacft", 2}, {"fs", 2}, {"w", 2}, {"gd_enrollment_complete", 2},
		{"cs", 2}, {"sede", 1}, {"feccft", 1}, {"scu", 1}, {"sdu", 1}, {"depnote", 1}, {"fn", 1},
		{"organization_member_added", 1}, {"sens", 1},
	}
}
