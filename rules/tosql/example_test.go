package tosql_test

import (
	"fmt"
	"testing/fstest"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/tosql"
)

// A rule becomes a query over the view events, for any client of ClickHouse.
func ExampleQuery() {
	set, _ := rules.Load(nil, fstest.MapFS{"leaked.yml": {Data: []byte(`
title: Leaked password used
id: 0b6f5b2e-95c0-4c9a-8c44-6f2a7a0b9c11
level: medium
logsource: {product: auth0}
detection:
    leaked: {type: pwd_leak}
    condition: leaked
`)}})

	day := tosql.Range{Tenant: "acme", Since: tosql.Time{Ago: 24 * time.Hour}}
	query, err := tosql.Query(set, set.Rules()[0], day)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(query)
	// Output:
	// /* Leaked password used (0b6f5b2e-95c0-4c9a-8c44-6f2a7a0b9c11), detection, leaked.yml:2
	//    The events that it matches. */
	// SELECT date, log_id, tenant, type, description, ip, user_id, user_name
	// FROM events
	// WHERE date > now64(3, 'UTC') - INTERVAL 1 DAY
	//   AND tenant = 'acme'
	//   AND lower(type) = 'pwd_leak'
	// ORDER BY date, log_id
}
