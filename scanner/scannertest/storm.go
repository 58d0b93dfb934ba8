package scannertest

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/schema"
)

// Builtin returns the built-in rules.
func Builtin(t testing.TB) *rules.Set {
	t.Helper()
	set, _ := rules.Load(nil, builtin.FS())
	return set
}

// Storm returns some hours of attacks by a few actors, so that alerts begin, rise and
// end, with dates that are out of order by up to two seconds.
func Storm(t testing.TB, seed uint64, n int) []schema.Event {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 2))
	types := []string{"fp", "fu", "f", "limit_wc", "feccft", "ferrt", "gd_send_pn", "pwd_leak", "ss", "api_limit", "s"}
	at := Start
	var list []schema.Event
	for i := range n {
		if r.IntN(200) == 0 {
			at = at.Add(time.Duration(r.IntN(90)) * time.Minute) // quiet, so that something ends
		}
		at = at.Add(time.Duration(r.IntN(3000)) * time.Millisecond)
		user := fmt.Sprintf("user%d", r.IntN(12))
		list = append(list, Event(t, at.Add(-time.Duration(r.IntN(2000))*time.Millisecond), i, map[string]any{
			"type": types[r.IntN(len(types))], "ip": fmt.Sprintf("203.0.113.%d", r.IntN(4)), "user_name": user,
			"user_id": "auth0|" + user, "client_id": fmt.Sprintf("app%d", r.IntN(2)),
			"details": map[string]any{"limit": map[string]any{"bucket": "b"}}}))
	}
	return list
}
