package rules

import (
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// Correlation is a rule that counts other rules' events.
type Correlation struct {
	correlation.Spec
	Sources []Source // the rules that it counts, in the order written
	// Among are the detections whose events are the whole of which a type counts a part, as
	// indexes into Set.Rules.
	Among []int
}

// Source is one of the rules that a correlation counts.
type Source struct {
	Rule int // index into Set.Rules, of a detection or a correlation
	// GroupBy are the fields of its events that Alert.GroupBy stands for. They differ between
	// sources that have aliases.
	GroupBy []expr.Field
	Values  []expr.Field // the fields whose values count; see correlation.Traits.Value
}

// HasAliases reports whether the group's fields or the values have different names in its sources.
func (c *Correlation) HasAliases() bool {
	first := c.Sources[0]
	return slices.ContainsFunc(c.Sources, func(other Source) bool {
		return !slices.Equal(other.GroupBy, first.GroupBy) || !slices.Equal(other.Values, first.Values)
	})
}

// Words returns the condition in words, such as "at least 5 events". names are those of the rules that
// it counts, in the order of Sources.
func (c *Correlation) Words(names []string) string {
	var bounds, paths []string
	for _, bound := range c.Bounds {
		bounds = append(bounds, bound.Words())
	}
	for _, field := range c.Sources[0].Values {
		paths = append(paths, field.Path)
	}

	return c.Type.Describe(&c.Spec, correlation.Words{
		Bounds: strings.Join(bounds, " and "),
		Field:  strings.Join(paths, " and "),
		Rules:  names,
	})
}

// GroupFields returns the fields by which the rule groups events, as one of its sources has them. A source
// beyond Sources stands for the rules in Among. A rule without a Correlation must have an Alert.
func (r *Rule) GroupFields(source int) []expr.Field {
	switch counted := r.Correlation; {
	case counted == nil:
		return r.Alert.GroupBy
	case source < len(counted.Sources):
		return counted.Sources[source].GroupBy
	default:
		return counted.Sources[0].GroupBy
	}
}
