package auth0sim

import (
	"slices"
	"strings"
)

// kind is one type of event, with its groups of top-level fields and its details. desc,
// details and extra are template text.
type kind struct {
	code    string
	desc    string
	fields  string // names of groups, see groups
	details string // "" = the event has none
	extra   string // further top-level members, each with a comma in front
	variant string // name of a second form of the type; "" = the usual one
}

// The shapes of an event.
const (
	shapeModern   = iota // since 2024: null members are left out
	shapeNulls           // 2023: members without a value are null, no tenant_name
	shapeNoID            // without _id
	shapeDateObj         // date is an object
	shapeNoDetail        // details is null
	shapeMobiles         // is_mobile and isMobile
	shapeCount
)

// catalog returns every type that the tenant can produce: those with a published
// schema, and a few that are only documented, or retired.
func catalog() []kind {
	return slices.Concat(loginKinds(), tokenKinds(), mfaKinds(), otherKinds())
}

// group is a set of top-level members that occur together.
type group struct{ name, text, nulls string }

// groups returns the groups in the order of their members. nulls is the text of the 2023
// shape for an event without the group. array selects the usual form of the scopes.
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
	for _, name := range strings.Fields(k.fields) {
		has[name] = true
	}

	var members, withNulls strings.Builder
	for _, group := range groups(k.code == "f" || k.code == "fsa") {
		// The 2023 shape has no later groups.
		if has[group.name] {
			members.WriteString(group.text)
			if group.name != "sec" && group.name != "refs" && group.name != "sdk" {
				withNulls.WriteString(group.text)
			}
			continue
		}
		withNulls.WriteString(group.nulls)
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

	member := members.String()
	sources := [shapeCount]string{
		shapeModern: date + name + member + details + ids + modern + mobile + browser,
		shapeNulls: `{"_id":"<id>","log_id":"<id>","date":"<date>"` + name + withNulls.String() +
			detailsOrNull + `,"location_info":null` + mobile + browser,
		shapeNoID:     date + name + member + details + `,"log_id":"<id>"` + modern + mobile + browser,
		shapeDateObj:  `{"date":{"$date":"<date>"}` + name + member + details + ids + modern + mobile + browser,
		shapeNoDetail: date + name + member + nullDetails + ids + modern + mobile + browser,
		shapeMobiles:  date + name + member + details + ids + modern + `,"is_mobile":<mobile>` + mobile + browser,
	}

	var compiled [shapeCount]template
	for i, src := range sources {
		compiled[i] = compile(src, names)
	}
	return compiled
}

// weight is the frequency of a type among 1,024 background events.
type weight struct {
	code string
	n    int
}

// weights returns frequencies that resemble a tenant whose users mostly hold refresh
// tokens. Rate limits, refused Management calls and attack protection are left out:
// only attacks write them, so that the answers stay exact.
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
