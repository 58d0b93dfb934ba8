package rules

import (
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
