package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// TestInvestigate asks every investigation by the command that an alert names, and
// gets what it is about.
func TestInvestigate(t *testing.T) {
	conn, dsn := chlocaltest.Open(t)
	now := time.Now().UTC().Truncate(time.Second)
	for i, e := range []struct{ typ, ip, user, client, details, rest string }{
		{"fp", "192.0.2.1", "auth0|it's \u00e9", "app", `{"familyId":"fam"}`, `{"security_context":{"ja4":"t13d"},"location_info":{"country_code":"NZ"}}`},
		{"gd_enrollment_complete", "192.0.2.1", "auth0|2", "app", `{"authenticator":{"type":"sms","phone_number":"+64 21"}}`, ""},
		{"sapi", "192.0.2.1", "", "dash", `{"request":{"method":"delete","path":"/api/v2/clients/x","auth":{"user":{"email":"a@example.com"}}},"response":{"statusCode":404}}`, ""},
		{"api_limit", "", "", "app", `{"limit":{"bucket":"b"}}`, ""},
		{"ss", "192.0.2.1", "auth0|3", "app", "", ""},
		{"tenantwatch_gap", "", "", "", `{"seconds":1}`, ""},
		{"tenantwatch_probe", "", "", "", `{"probe":"login","ok":true}`, ""},
	} {
		if err := conn.Exec(t.Context(), "INSERT INTO events_stored (tenant, date, type, log_id, ip, user_id, client_id, details, rest, source) VALUES ('acme', ?, ?, ?, ?, ?, ?, ?, ?, 'tail')",
			now, e.typ, fmt.Sprint(i), e.ip, e.user, e.client, e.details, e.rest); err != nil {
			t.Fatal(err)
		}
	}
	group := []schema.GroupValue{{Field: "user_id", Value: "auth0|it's \u00e9"}, {Field: "ip", Value: "192.0.2.1"}, {Field: "security_context.ja4", Value: "t13d"}, {Field: "client_id", Value: "app"},
		{Field: "details.familyId", Value: "fam"}, {Field: "details.authenticator.phone_number", Value: "+64 21"}}
	run := func(args ...string) (string, string, int) {
		var out, errs bytes.Buffer
		code := execute(t.Context(), args, &app{stdout: &out, stderr: &errs, environ: []string{"CLICKHOUSE_DSN=" + dsn}})
		return out.String(), errs.String(), code
	}
	all := schema.Investigations()
	if len(all) < 14 {
		t.Fatalf("%d investigations", len(all))
	}
	for _, i := range all {
		a := schema.Alert{Tenant: "acme", StartsAt: now, UpdatedAt: now, Group: group}
		command := a.InvestigationCommand(i.Name)
		rest, ok := strings.CutPrefix(command, "tenantwatch ")
		if !ok || i.About == "" {
			t.Errorf("%s: about %q, command %q", i.Name, i.About, command)
			continue
		}
		out, errs, code := run(append(words(rest), "--output", "json")...)
		var rows []map[string]any
		if err := json.Unmarshal([]byte(out), &rows); err != nil || code != exitOK || len(rows) == 0 {
			t.Errorf("%s: exit %d, %d rows, %v\n%s%s", command, code, len(rows), err, out, errs)
		}
		a.Group = nil
		if command := a.InvestigationCommand(i.Name); (command == "") != (len(i.Fields) > 0) {
			t.Errorf("%s of a tenant: %q", i.Name, command)
		}
		a.Tenant = "other"
		if out, _, _ := run("investigate", i.Name, "--tenant", "other", "--output", "json", "--value="+map[bool]string{true: "app"}[len(i.Fields) > 0]); out != "[]\n" {
			t.Errorf("%s of another tenant: %s", i.Name, out)
		}
	}
}

// words splits a command as a shell does, where single quotes are all it has.
func words(command string) []string {
	var list []string
	word, quoted := "", false
	for i := 0; i < len(command); i++ {
		switch c := command[i]; {
		case c == '\'':
			quoted = !quoted
		case c == '\\' && !quoted:
			i++
			word += command[i : i+1]
		case c == ' ' && !quoted:
			list, word = append(list, word), ""
		default:
			word += command[i : i+1]
		}
	}
	return append(list, word)
}
