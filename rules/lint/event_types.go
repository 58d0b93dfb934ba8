package lint

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

//go:embed types.txt
var typesText string

// typeNames are the types of events.
type typeNames struct {
	current []string
	retired []string
}

// knownTypes returns the types of Auth0, from types.txt, and our own.
func knownTypes() typeNames {
	names := typeNames{current: []string{schema.TypeProbe, schema.TypeAPIError, schema.TypeGap, schema.TypeAudit,
		schema.TypeLogStream, schema.TypeHealth, schema.TypeForgotten}}
	for line := range strings.Lines(typesText) {
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "retired:"):
			names.retired = append(names.retired, strings.Fields(strings.TrimPrefix(line, "retired:"))...)
		default:
			names.current = append(names.current, strings.Fields(line)...)
		}
	}
	return names
}

// matchesAny reports whether a pattern matches one of some types.
func matchesAny(p expr.Pattern, types []string) bool {
	return slices.ContainsFunc(types, func(name string) bool { return p.Match([]byte(name)) })
}

// checkTypes finds event types that Auth0 does not have, or no longer emits.
func checkTypes(run *run, p *rules.Parsed) (list []Finding) {
	rule, known := p.Rule, &run.types
	if rule.Match == nil {
		return nil
	}

	// A retired type matters less in a rule that also matches a current one.
	isOld := func(p expr.Pattern) bool { return matchesAny(p, known.retired) && !matchesAny(p, known.current) }
	ruleTypes := rule.Match.Types()
	onlyOld := ruleTypes != nil && !slices.ContainsFunc(ruleTypes, func(p expr.Pattern) bool { return !isOld(p) })

	rule.Match.Leaves(func(part *expr.Tree) {
		typeTest, ok := part.Leaf.(*expr.Test)
		if !ok || typeTest.Field.Path != expr.TypeField {
			return
		}

		// Report each type separately: the others of the test may be right.
		for _, pat := range patternsOf(typeTest) {
			if matchesAny(pat, known.current) {
				continue
			}
			finding := found(p, SeverityWarning, part.Line, "")
			finding.File = part.File
			name := pat.String()
			switch {
			case matchesAny(pat, known.retired):
				finding.Text = fmt.Sprintf("Auth0 no longer emits events of the type %s", name)
				if !onlyOld {
					finding.Severity = SeverityInfo
				}
			case pat.Shape == expr.ShapeExact:
				finding.Text = fmt.Sprintf("unknown event type %s", name)
				if near := known.near(name); near != "" {
					finding.Text += "; did you mean " + near + "?"
				}
			default:
				finding.Text = fmt.Sprintf("no known event type matches %s", name)
			}

			list = append(list, finding)
		}
	})
	return list
}

// patternsOf returns the texts that a test compares with.
func patternsOf(t *expr.Test) (list []expr.Pattern) {
	for _, check := range t.Checks {
		switch c := check.(type) {
		case expr.OneOf:
			for text := range c {
				list = append(list, expr.Pattern{Text: text})
			}
		case expr.Pattern:
			list = append(list, c)
		}
	}

	slices.SortFunc(list, func(a, b expr.Pattern) int {
		return cmp.Or(strings.Compare(a.Text, b.Text), slices.Compare(a.Parts, b.Parts))
	})
	return list
}

// near returns the type of which a name is probably a misspelling; empty if there is none.
func (t *typeNames) near(name string) string {
	// Accept at most two changed letters.
	best, least := "", min(3, len(name))
	for _, known := range t.current {
		distance := levenshtein.Distance(name, known, nil)

		// At the same distance, prefer a type of the same length.
		sameLength := best != "" && len(best) != len(name) && len(known) == len(name)
		if distance < least || distance == least && sameLength {
			best, least = known, distance
		}
	}
	return best
}
