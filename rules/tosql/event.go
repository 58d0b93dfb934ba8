package tosql

import (
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/schema"
)

// DateTime returns a time as SQL, in milliseconds.
func DateTime(at time.Time) string {
	return "toDateTime64('" + at.UTC().Format("2006-01-02 15:04:05.000") + "', 3, 'UTC')"
}

// Types returns a condition on the type; types may have wildcards.
func Types(types []string) string {
	var plain, all []string
	for _, name := range types {
		if strings.ContainsAny(name, "*?") {
			all = append(all, "type ILIKE "+schema.Like(name))
		} else {
			plain = append(plain, schema.Literal(name))
		}
	}

	if len(plain) > 0 {
		all = append(all, "type IN ("+strings.Join(plain, ", ")+")")
	}
	if len(all) > 1 {
		return "(" + strings.Join(all, " OR ") + ")"
	}
	return strings.Join(all, "")
}

// Equal returns a condition that compares a field with its value. The field is a
// column, or a path in the JSON of details or rest.
func Equal(v schema.GroupValue, quoted bool) string {
	place := Locate(v.Field)
	switch {
	case place.Plain():
		return place.Column + " = " + schema.Literal(v.Value)
	case place.Own() || quoted:
		return place.Text + " = " + schema.Literal(v.Value)
	}
	return place.Raw() + " = " + schema.Literal(v.Value)
}
