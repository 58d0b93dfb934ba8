package rules_test

import (
	"fmt"
	"testing/fstest"

	"github.com/tenantwatch/tenantwatch/rules"
)

// A rule is loaded from a folder, and matches one event after the other.
func ExampleLoad() {
	files := fstest.MapFS{"leaked.yml": {Data: []byte(`
title: Leaked password used
id: 0b6f5b2e-95c0-4c9a-8c44-6f2a7a0b9c11
level: medium
logsource: {product: auth0}
detection:
    leaked: {type: pwd_leak}
    office: {ip|cidr: 198.51.100.0/24}
    condition: leaked and not office
`)}}
	set, report := rules.Load(nil, files) // or os.DirFS of a folder
	for _, document := range report.Documents {
		fmt.Println(document.Status, document.Title)
	}

	// A matcher belongs to one goroutine.
	matcher := set.Matcher()
	for _, event := range []string{
		`{"type": "pwd_leak", "ip": "203.0.113.9"}`,
		`{"type": "pwd_leak", "ip": "198.51.100.7"}`,
		`{"type": "s", "ip": "203.0.113.9"}`,
	} {
		for _, index := range matcher.Match([]byte(event)) {
			fmt.Println(set.Rules()[index].Title, event)
		}
	}
	// Output:
	// enabled Leaked password used
	// Leaked password used {"type": "pwd_leak", "ip": "203.0.113.9"}
}

// A document that cannot be evaluated as written is refused, with its position.
func ExampleLoad_refused() {
	files := fstest.MapFS{"typo.yml": {Data: []byte(`title: Typo
detection:
    failed: {type|startwith: f}
    condition: failed
`)}}
	_, report := rules.Load(nil, files)
	fmt.Println(report.Documents[0].Status, report.Documents[0].Reason)
	// Output:
	// refused typo.yml:4: condition "failed": failed: line 3: type|startwith: unknown modifier "startwith"
}
