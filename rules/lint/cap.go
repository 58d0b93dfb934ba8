package lint

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
	"github.com/tenantwatch/tenantwatch/schema"
)

// checkCaps finds thresholds and levels of a correlation that the caps rule out.
func checkCaps(run *run, p *rules.Parsed) (list []Finding) {
	corr := p.Rule.Correlation
	if corr == nil || !corr.Type.Traits().Count {
		return nil
	}

	report := func(severity Severity, file string, line int, text string) {
		finding := found(p, severity, line, "%s", text)
		finding.File = file
		list = append(list, finding)
	}
	if severity, text := beyondCaps(p, run.caps, corr.LowestCount()); severity != "" {
		file, line := p.CorrelationAt("condition")
		report(severity, file, line, "the threshold "+text)
		return list
	}
	if p.Rule.Alert == nil {
		return nil
	}

	// Higher levels have thresholds of their own.
	file, line := p.AlertAt("levels")
	for _, level := range p.Rule.Alert.Levels[1:] {
		if severity, text := beyondCaps(p, run.caps, level.Count); severity != "" {
			report(severity, file, line, "the level "+level.Name+" "+text)
		}
	}
	return list
}

// beyondCaps describes the caps that rule out a count: an error if they always apply, a warning
// if they depend on the tenant's settings. The severity is empty if the count is possible.
func beyondCaps(p *rules.Parsed, caps []eventCap, count float64) (Severity, string) {
	// Caps that always apply come first: they make an error.
	hard := slices.DeleteFunc(slices.Clone(caps), func(c eventCap) bool { return !c.hard })
	for _, applied := range []struct {
		caps     []eventCap
		severity Severity
		words    string
	}{
		{hard, SeverityError, "can never be reached"},
		{caps, SeverityWarning, "can only be reached if this limit does not apply"},
	} {
		most, because, ok := maxCount(p, applied.caps)
		if !ok || float64(most) >= count {
			continue
		}

		var why []string
		for _, limit := range because {
			why = append(why, limit.name+": "+limit.source)
		}
		return applied.severity, fmt.Sprintf("%s: %v in %s; Auth0 allows %d at most: %s", applied.words,
			count, shortSpan(p.Rule.Correlation.Timespan), most, strings.Join(why, "; "))
	}
	return "", ""
}

// limits reports whether the cap applies to the events of a rule that have a type, grouped by
// some fields.
func (c *eventCap) limits(base *rules.Rule, typ string, groupBy []expr.Field) bool {
	if !slices.Contains(c.types, typ) {
		return false
	}

	for _, names := range c.per {
		if !slices.ContainsFunc(groupBy, func(f expr.Field) bool { return slices.Contains(names, f.Path) }) {
			return false // a group has the events of several buckets
		}
	}
	return c.description == "" || base.Match != nil && requires(base.Match, "description", c.description)
}

// requires reports whether an expression can be true only where a field has a text.
func requires(tree *expr.Tree, path, text string) bool {
	every := func(part *expr.Tree) bool { return requires(part, path, text) }
	switch tree.Op {
	case expr.OpAnd:
		return slices.ContainsFunc(tree.Parts, every)
	case expr.OpOr:
		return !slices.ContainsFunc(tree.Parts, func(part *expr.Tree) bool { return !every(part) })
	case expr.OpNot:
		return false
	}

	test, ok := tree.Leaf.(*expr.Test)
	if !ok || test.Field.Path != path || test.Negate || test.Absent || len(test.Checks) != 1 {
		return false
	}

	// The test must be for this text alone.
	texts, ok := test.Checks[0].(expr.OneOf)
	_, has := texts[strings.ToLower(text)]
	return ok && has && len(texts) == 1
}

// bucket identifies a bucket of a cap: by the type if the types have their own buckets.
type bucket struct {
	limit int // index of the cap
	typ   string
}

// maxCount returns the maximum number of events that a correlation can count in one group, given
// the caps, and the caps that limit it. ok is false if some of the events are not limited.
func maxCount(p *rules.Parsed, caps []eventCap) (count int, because []*eventCap, ok bool) {
	known := map[bucket]bool{}
	corr := p.Rule.Correlation
	for i, source := range corr.Sources {
		base := p.Counts[i].Rule

		// Caps apply to types: a rule for any type is not limited.
		if base.Types == nil {
			return 0, nil, false
		}

		for _, typ := range base.Types {
			lowest := lowestCap(base, typ, source.GroupBy, corr.Timespan, caps)
			if lowest < 0 {
				return 0, nil, false
			}

			// Types that share a bucket are counted once.
			key := bucket{limit: lowest}
			if caps[lowest].apart {
				key.typ = typ
			}
			if known[key] {
				continue
			}
			known[key] = true
			count += caps[lowest].most(corr.Timespan)
			if !slices.Contains(because, &caps[lowest]) {
				because = append(because, &caps[lowest])
			}
		}
	}

	return count, because, len(known) > 0
}

// lowestCap returns the index of the cap that limits the events of a rule and type the most, or -1.
func lowestCap(base *rules.Rule, typ string, groupBy []expr.Field, timespan time.Duration, caps []eventCap) int {
	lowest := -1
	for i := range caps {
		limit := &caps[i]
		if !limit.limits(base, typ, groupBy) {
			continue
		}
		if lowest < 0 || limit.most(timespan) < caps[lowest].most(timespan) {
			lowest = i
		}
	}
	return lowest
}

// shortSpan formats a duration in days or without zero units: 1h rather than 1h0m0s.
func shortSpan(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return schema.ShortDuration(d)
}
