package rules_test

import (
	"testing"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

// common are events as a tenant's log has them: what no rule is about, what one
// counts, and a long one of the Management API.
var common = map[string]string{
	"login":        `{"_id":"90020261120101112123456000000000000000000000000000000001","log_id":"90020261120101112123456000000000000000000000000000000001","date":"2026-11-20T10:11:12.345Z","type":"s","description":"","connection":"Username-Password-Authentication","connection_id":"con_0123456789abcdef","client_id":"AbCdEf0123456789","client_name":"Shop","ip":"198.51.100.7","user_agent":"Chrome 140.0.0 / Mac OS X 10.15.7","hostname":"shop.eu.auth0.com","user_id":"auth0|0123456789abcdef","user_name":"somebody@example.com","strategy":"auth0","strategy_type":"database","details":{"prompts":[{"name":"prompt-authenticate","initiatedAt":1795083072000,"completedAt":1795083072345,"connection":"Username-Password-Authentication","stats":{"loginsCount":12}}],"stats":{"loginsCount":12},"session_id":"abc"},"isMobile":false,"tenant_name":"shop"}`,
	"failed login": `{"log_id":"90020261120101112123456000000000000000000000000000000002","date":"2026-11-20T10:11:12.345Z","type":"fp","description":"Wrong email or password.","connection":"Username-Password-Authentication","client_id":"AbCdEf0123456789","client_name":"Shop","ip":"198.51.100.7","user_agent":"Chrome 140.0.0 / Mac OS X 10.15.7","user_id":"auth0|0123456789abcdef","user_name":"Somebody@example.com","details":{"error":{"message":"Wrong email or password."}},"security_context":{"ja3":"x","ja4":"t13d1516h2_8daaf6152771_02713d6af862"},"isMobile":false}`,
	"change":       `{"log_id":"90020261120101112123456000000000000000000000000000000003","date":"2026-11-20T10:11:12.345Z","type":"sapi","description":"Update a client","client_id":"AbCdEf0123456789","ip":"198.51.100.7","details":{"request":{"method":"patch","path":"/api/v2/clients/x","body":{"name":"a \"quoted\" name","grant_types":["authorization_code"]},"auth":{"user":{"email":"admin@example.com"},"credentials":{"jti":"x"}}},"response":{"statusCode":200,"body":{"client_id":"x","callbacks":["https://example.com"]}}}}`,
}

// BenchmarkMatch is what one event costs the built-in rules.
func BenchmarkMatch(b *testing.B) {
	set, _ := rules.Load(nil, builtin.FS())
	for name, event := range common {
		b.Run(name, func(b *testing.B) {
			m, raw := set.Matcher(), []byte(event)
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				m.Match(raw)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N), "ns/event")
		})
	}
}

// TestMatchDoesNotAllocate holds the promise of Matcher.
func TestMatchDoesNotAllocate(t *testing.T) {
	set, report := rules.Load(nil, builtin.FS())
	if n := report.Count(rules.StatusEnabled); n != len(report.Documents) || n == 0 {
		t.Fatalf("%d of %d documents are loaded", n, len(report.Documents))
	}
	m := set.Matcher()
	for name, event := range common {
		raw := []byte(event)
		if n := testing.AllocsPerRun(100, func() { m.Match(raw) }); n != 0 {
			t.Errorf("%s: %v allocations an event", name, n)
		}
	}
	if len(m.Match([]byte(common["failed login"]))) == 0 {
		t.Error("no rule is about a failed login")
	}
}
