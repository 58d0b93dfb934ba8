package history_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
	"github.com/tenantwatch/tenantwatch/schema/chlocal"
	"github.com/tenantwatch/tenantwatch/schema/chlocal/chlocaltest"
)

func TestZZ(t *testing.T) {
	srv := chlocaltest.Start(t, "/tmp/tw20/data/clickhouse")
	conn, err := schema.Open(t.Context(), srv.Access.DSN(chlocal.Owner, "tenantwatch"), nil)
	if err != nil {
		t.Fatal(err)
	}
	cols := `tenant, date, type, log_id, members, tenant_name, environment_name, description, client_id, client_name, connection, connection_id, ip, client_ip, user_id, user_name, identity_user_id, user_agent, hostname, strategy, strategy_type, organization_id, organization_name, audience, scope, details, rest, source, fetched_at`
	if os.Getenv("FILL") != "" {
		if err := conn.Exec(t.Context(), "CREATE TABLE IF NOT EXISTS base AS events_stored"); err != nil {
			t.Fatal(err)
		}
		if err := conn.Exec(t.Context(), "INSERT INTO base ("+cols+") SELECT "+cols+" FROM events_stored"); err != nil {
			t.Fatal(err)
		}
		for i := 1; i < 20; i++ {
			began := time.Now()
			sel := fmt.Sprintf(`tenant, date - toIntervalSecond(%d), type, concat(substring(log_id, 1, 54), '%02d'), members, tenant_name, environment_name, description, client_id, client_name, connection, connection_id, if(ip = '', '', concat(ip, '.%d')), client_ip, if(user_id = '', '', concat(user_id, 'x%d')), user_name, identity_user_id, user_agent, hostname, strategy, strategy_type, organization_id, organization_name, audience, scope, details, rest, source, fetched_at`, i*137, i, i, i)
			if err := conn.Exec(t.Context(), "INSERT INTO events_stored ("+cols+") SELECT "+sel+" FROM base"); err != nil {
				t.Fatal(err)
			}
			fmt.Println(i, time.Since(began))
		}
	}
	fmt.Println(srv.Access.DSN(chlocal.Owner, "tenantwatch"))
	os.WriteFile("/tmp/tw20/dsn", []byte(srv.Access.DSN(chlocal.Owner, "tenantwatch")), 0o600)
	<-t.Context().Done()
}
