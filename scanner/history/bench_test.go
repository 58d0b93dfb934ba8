package history_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/ingest/auth0sim"
	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/scanner/history"
	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

// Of so many simulated events of thirty days, so many copies are stored, with other
// users and addresses.
const (
	benchEvents = 200_000
	benchCopies = 25
)

// BenchmarkBacktest runs rules over 5,000,000 events of thirty days.
func BenchmarkBacktest(b *testing.B) {
	conn, _ := chlocaltest.Open(b)
	exec := func(statement string) {
		b.Helper()
		if err := conn.Exec(b.Context(), statement); err != nil {
			b.Fatal(err)
		}
	}
	until := time.Now().UTC().Truncate(time.Second)
	tenant := auth0sim.New(auth0sim.Config{HistoryEvents: benchEvents, HistorySpan: 30 * 24 * time.Hour, Anchor: until, Attacks: auth0sim.DemoAttacks()})
	var events []schema.Event
	for _, id := range tenant.IDs() {
		raw, _ := tenant.Event(id)
		events = append(events, schema.Event{Tenant: "acme", Source: schema.SourceTail, FetchedAt: until, Raw: raw})
	}
	insert(b, conn, events, until)
	exec("CREATE TABLE base AS events_stored")
	columns := append([]string{"tenant", "date", "type", "log_id", "members"}, schema.TextColumns()...)
	columns = append(columns, "details", "rest", "source", "fetched_at")
	list := strings.Join(columns, ", ")
	exec("INSERT INTO base (" + list + ") SELECT " + list + " FROM events_stored")
	const atOnce = 6 // so that there are not as many parts as copies
	for n := 1; n < benchCopies; n += atOnce {
		var selects []string
		for k := n; k < min(n+atOnce, benchCopies); k++ {
			other := strings.NewReplacer("date", fmt.Sprintf("date - toIntervalSecond(%d)", k*137), "log_id", fmt.Sprintf("concat(substring(log_id, 1, 53), leftPad('%d', 3, '0'))", k),
				", ip,", fmt.Sprintf(", if(ip = '', '', concat(ip, '.%d')),", k), ", user_id,", fmt.Sprintf(", if(user_id = '', '', concat(user_id, 'x%d')),", k)).Replace(list)
			selects = append(selects, "SELECT "+other+" FROM base")
		}
		exec("INSERT INTO events_stored (" + list + ") " + strings.Join(selects, " UNION ALL "))
	}
	set, _ := rules.Load(rules.Vars{"probe_clients": {}}, builtin.FS())
	span := history.Span{Since: until.Add(-31 * 24 * time.Hour), Until: until.Add(time.Second)}
	for _, name := range []string{"failed_logins_by_ip", "failed_logins_ratio", "impossible_travel", "push_bombing"} {
		b.Run(name, func(b *testing.B) {
			own := set.Select(func(r *rules.Rule) bool { return r.Name == name })
			read := 0
			for b.Loop() {
				results, err := history.NewStore(conn).Backtest(b.Context(), own, span, func(events int, _ float64) { read = events })
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(len(results[0].Alerts)), "alerts")
			}
			b.ReportMetric(float64(read), "events-read")
			b.ReportMetric(float64(benchEvents*benchCopies)*float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
