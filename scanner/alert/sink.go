package alert

import (
	"context"
	"strings"

	"github.com/tenantwatch/tenantwatch/schema"
)

// Sink notifies people. Notify blocks until the alert is delivered. After an error it
// is called again with the same alert.
type Sink interface {
	Notify(ctx context.Context, a *schema.Alert) error
}

// Family returns the rule family of an alert, from its tag tenantwatch.FAMILY; "" if it
// has none.
func Family(a *schema.Alert) string {
	for _, tag := range a.Tags {
		if family, ok := strings.CutPrefix(tag, "tenantwatch."); ok {
			return strings.ReplaceAll(family, "_", " ")
		}
	}
	return ""
}
