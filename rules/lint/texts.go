package lint

import (
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules"
)

// checkTexts finds information that a reader of an alert would miss. A correlation inherits it
// from the rules that it counts.
func checkTexts(_ *run, p *rules.Parsed) []Finding {
	rule := p.Rule
	if rule.Alert == nil {
		return nil
	}

	var missing []string
	// Without a level anywhere, the default is rarely what was meant.
	if !hasLevel(p) {
		missing = append(missing, "level (default "+rules.DefaultLevel+")")
	}
	if rule.Description == "" {
		missing = append(missing, "description")
	}
	if rule.FalsePositives == nil {
		missing = append(missing, "falsepositives")
	}
	if len(missing) == 0 {
		return nil
	}
	return []Finding{found(p, SeverityInfo, p.Line, "it has no %s", strings.Join(missing, ", no "))}
}

// hasLevel reports whether a rule, or one that it counts, says what its level is.
func hasLevel(p *rules.Parsed) bool {
	return p.Text("level") != "" || slices.ContainsFunc(p.Counts, hasLevel)
}
