package explain

import (
	"math/bits"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/scanner"
)

// keys is the key of one group.
type keys []Key

// complete reports whether the event has every field of the key.
func (k keys) complete() bool {
	return !slices.ContainsFunc(k, func(part Key) bool { return !part.Found })
}

// sameValues reports whether two keys are of the same group.
func (k keys) sameValues(other keys) bool { return slices.Equal(k.values(), other.values()) }

func (k keys) values() (list []string) {
	for _, part := range k {
		list = append(list, part.Value)
	}
	return list
}

// among stands for the rules in Correlation.Among as a source.
const among = bits.UintSize

// keysAt returns the group keys of the matcher's event, as one source of a rule has the
// fields. A field that the event lacks is included, and not Found.
func keysAt(m *expr.Matcher, r *rules.Rule, source int) []keys {
	list := []keys{nil}
	for i, field := range r.GroupFields(source) {
		part := Key{Field: field.Path}
		if r.Alert != nil && r.Alert.GroupBy[i].Path != field.Path {
			part.Field, part.Path = r.Alert.GroupBy[i].Path, field.Path
		}

		texts := scanner.Distinct(m.AppendTexts(nil, field))
		if part.Found = len(texts) > 0; !part.Found {
			texts = []expr.Text{{}}
		}

		// Extend each key so far by each value of the field.
		var longer []keys
		for _, text := range texts {
			for _, key := range list {
				part.Value = string(text.Text)
				longer = append(longer, append(slices.Clone(key), part))
			}
		}
		list = longer[:min(len(longer), scanner.MaxMembers)]
	}
	return list
}

// hasValue reports whether the matcher's event has a value that a correlation counts, as one source
// has the fields.
func hasValue(m *expr.Matcher, counted *rules.Correlation, source int) bool {
	fields := counted.Sources[min(source, len(counted.Sources)-1)].Values
	switch counted.Type.Traits().Value {
	case correlation.ValueHash:
		return !slices.ContainsFunc(fields, func(f expr.Field) bool { return len(m.AppendTexts(nil, f)) == 0 })
	case correlation.ValueNumber:
		return slices.ContainsFunc(m.AppendTexts(nil, fields[0]), func(text expr.Text) bool {
			_, ok := correlation.ParseNumber(text.Text)
			return ok
		})
	}
	return true
}
