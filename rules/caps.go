package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// Cap is a limit of Auth0's own: events beyond it do not occur, so a rule that requires them can
// never fire. It is modelled as a bucket with Burst tokens that gains one token per interval Every.
type Cap struct {
	Name        string
	Types       []string      // of the events
	Apart       bool          // each of the types has, or may have, its own bucket
	Description string        // sapi: the description of the events; empty for any
	Per         [][]string    // what has its own bucket: for each part of the key, the fields that may hold it
	Burst       int           // maximum number of events at once
	Every       time.Duration // interval after which one more is possible
	Hard        bool          // it always applies, whatever the tenant's settings
	Source      string
}

// Caps returns the limits that Auth0 documents.
func Caps() []Cap {
	return slices.Concat(mfaCaps(), attackCaps(), noticeCaps())
}

// The fields that may hold the parts of a bucket's key.
func userFields() []string { return []string{"user_id", "user_name"} }
func ipFields() []string   { return []string{"ip"} }

// configurations is the source of several limits.
const configurations = "rate limit configurations of the Authentication API"

// mfaCaps returns the limits of multi-factor authentication.
func mfaCaps() []Cap {
	return []Cap{
		{
			Name:  "text messages and calls for MFA",
			Types: []string{"gd_send_sms", "gd_send_voice"}, Apart: true, Per: [][]string{userFields()},
			Burst: 10, Every: time.Hour, Hard: true,
			Source: "10 an hour to a user, then one an hour (" + configurations + ")",
		},
		{
			Name:  "push notifications for MFA",
			Types: []string{"gd_send_pn"}, Per: [][]string{userFields()},
			Burst: 5, Every: 12 * time.Second, Hard: true,
			Source: "5 a minute to a user (" + configurations + ")",
		},
		{
			Name:  "wrong recovery codes",
			Types: []string{"gd_recovery_failed"}, Per: [][]string{userFields()},
			Burst: 10, Every: 6 * time.Minute, Hard: true,
			Source: "10 an hour of a user, then gd_recovery_rate_limit_exceed (" + configurations + ")",
		},
		{
			Name:  "wrong one-time passwords",
			Types: []string{"gd_auth_failed"}, Per: [][]string{userFields()},
			Burst: 10, Every: 6 * time.Minute,
			Source: "10 an hour of a user, then gd_otp_rate_limit_exceed (" + configurations + "); " +
				"other failures are not limited",
		},
	}
}

// attackCaps returns the limits of attack protection and of dynamic registration.
func attackCaps() []Cap {
	return []Cap{
		// A client that stays below 20 logins a minute may never be limited to the 10 that follow.
		{
			Name:  "logins of one user from one address",
			Types: []string{"fp", "fu"}, Per: [][]string{ipFields(), userFields()},
			Burst: 20, Every: 3 * time.Second, Hard: true,
			Source: "20 a minute, then limit_sul and 10 a minute " +
				"(rate limit policy, logins of the same user to a database connection)",
		},
		{
			Name:  "brute-force protection",
			Types: []string{"fp", "fu"}, Per: [][]string{ipFields(), userFields()},
			Burst: 10, Every: 30 * 24 * time.Hour,
			Source: "by default 10 failures of an address with a user, then limit_wc; " +
				"a login resets the count, and the tenant can turn it off or set 1 to 100",
		},
		{
			Name:  "suspicious IP throttling of logins",
			Types: []string{"fp", "fu"}, Per: [][]string{ipFields()},
			Burst: 100, Every: 864 * time.Second,
			Source: "by default 100 failures of an address a day, then limit_mu; " +
				"a login resets the count, and the tenant can turn it off or change it",
		},
		{
			Name:  "suspicious IP throttling of signups",
			Types: []string{"ss", "fs", "signup_pwd_leak"}, Per: [][]string{ipFields()},
			Burst: 50, Every: 1200 * time.Millisecond,
			Source: "by default 50 a minute from an address, then limit_mu; the tenant can turn it off or change it",
		},
		{
			Name:  "dynamic client registration",
			Types: []string{"sapi"}, Description: "Dynamic client registration",
			Burst: 5, Every: 200 * time.Millisecond, Hard: true,
			Source: "5 a second (" + configurations + ")",
		},
	}
}

// noticeCaps returns the limits of the events that report a limit or a leaked password.
func noticeCaps() []Cap {
	return []Cap{
		{
			Name:  "notices of a rate limit",
			Types: []string{"api_limit", "api_limit_warning"}, Apart: true, Per: [][]string{{"details.limit.bucket"}},
			Burst: 1, Every: time.Minute,
			Source: "an event when a bucket is exceeded, another one if it still is after about a minute " +
				"(rate limit use cases)",
		},
		{
			Name:  "notices of a performance burst",
			Types: []string{"appi"},
			Burst: 1, Every: 15 * time.Minute,
			Source: "one for each 15 minutes of the burst allowance (rate limit use cases)",
		},
		{
			Name:  "notices of leaked passwords",
			Types: []string{"pwd_leak"}, Per: [][]string{ipFields()},
			Burst: 1, Every: time.Hour,
			Source: "one an hour and address (log event type codes)",
		},
	}
}

// Max returns the maximum number of events in a window (t - timespan, t]. An event exactly one
// timespan after the first is not in a window with it.
func (c *Cap) Max(timespan time.Duration) int {
	return c.Burst + int((timespan+c.Every-1)/c.Every) - 1
}

// limits reports whether the cap applies to the events of a rule that have a type, grouped by
// some fields.
func (c *Cap) limits(base *Rule, typ string, groupBy []expr.Field) bool {
	if !slices.Contains(c.Types, typ) {
		return false
	}

	for _, names := range c.Per {
		if !slices.ContainsFunc(groupBy, func(f expr.Field) bool { return slices.Contains(names, f.Path) }) {
			return false // a group has the events of several buckets
		}
	}
	return c.Description == "" || base.Match != nil && requires(base.Match, "description", c.Description)
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
// the caps, and the caps that limit it. hardOnly ignores caps that depend on the tenant's
// settings. ok is false if some of the events are not limited.
func (r *Rule) maxCount(bases []*Rule, caps []Cap, hardOnly bool) (count int, because []*Cap, ok bool) {
	known := map[bucket]bool{}
	for i, source := range r.Correlation.Sources {
		// Caps apply to types: a rule for any type is not limited.
		if bases[i].Types == nil {
			return 0, nil, false
		}

		for _, typ := range bases[i].Types {
			lowest := r.lowestCap(bases[i], typ, source.GroupBy, caps, hardOnly)
			if lowest < 0 {
				return 0, nil, false
			}

			// Types that share a bucket are counted once.
			key := bucket{limit: lowest}
			if caps[lowest].Apart {
				key.typ = typ
			}
			if known[key] {
				continue
			}
			known[key] = true
			count += caps[lowest].Max(r.Correlation.Timespan)
			if !slices.Contains(because, &caps[lowest]) {
				because = append(because, &caps[lowest])
			}
		}
	}

	return count, because, len(known) > 0
}

// lowestCap returns the index of the cap that limits the events of a rule and type the most, or -1.
func (r *Rule) lowestCap(base *Rule, typ string, groupBy []expr.Field, caps []Cap, hardOnly bool) int {
	lowest := -1
	for i := range caps {
		limit := &caps[i]
		if hardOnly && !limit.Hard || !limit.limits(base, typ, groupBy) {
			continue
		}
		if lowest < 0 || limit.Max(r.Correlation.Timespan) < caps[lowest].Max(r.Correlation.Timespan) {
			lowest = i
		}
	}
	return lowest
}

// checkCaps finds thresholds and levels of a correlation that the caps rule out.
func (l *loader) checkCaps(doc *document, rule *Rule, caps []Cap) (list []Finding) {
	corr := rule.Correlation
	if corr == nil || !corr.Type.Traits().Count {
		return nil
	}

	// The correlation may come from an overlay: report its file then.
	file, node := doc.file, doc.keys["correlation"]
	if doc.overlay != nil && doc.overlay.correlation != nil {
		file = doc.overlay.file
	}
	if severity, text := l.beyondCaps(rule, caps, corr.LowestCount()); severity != "" {
		return []Finding{{Severity: severity, Check: "cap", File: file, Line: lineOf(node, "condition"),
			ID: doc.id, Title: doc.title, Text: "the threshold " + text}}
	}
	if rule.Alert == nil {
		return nil
	}

	// So may the levels of the alert.
	file, node = doc.file, doc.keys[keyAlert]
	if doc.overlay != nil && doc.overlay.alert != nil {
		file = doc.overlay.file
	}

	for _, level := range rule.Alert.Levels[1:] {
		if severity, text := l.beyondCaps(rule, caps, level.Count); severity != "" {
			list = append(list, Finding{Severity: severity, Check: "cap", File: file, Line: lineOf(node, "levels"),
				ID: doc.id, Title: doc.title, Text: "the level " + level.Name + " " + text})
		}
	}

	return list
}

// beyondCaps describes the caps that rule out a count: an error if they always apply, a warning
// if they depend on the tenant's settings. The severity is empty if the count is possible.
func (l *loader) beyondCaps(rule *Rule, caps []Cap, count float64) (Severity, string) {
	// Try the hard caps first: they give an error.
	for _, hardOnly := range []bool{true, false} {
		most, because, ok := rule.maxCount(l.links[rule].rules, caps, hardOnly)
		if !ok || float64(most) >= count {
			continue
		}

		var why []string
		for _, limit := range because {
			why = append(why, limit.Name+": "+limit.Source)
		}

		text := fmt.Sprintf("%v in %s; Auth0 allows %d at most: %s",
			count, shortSpan(rule.Correlation.Timespan), most, strings.Join(why, "; "))
		if hardOnly {
			return SeverityError, "can never be reached: " + text
		}
		return SeverityWarning, "can only be reached if this limit does not apply: " + text
	}
	return "", ""
}

// shortSpan formats a duration in days or without zero units: 1h rather than 1h0m0s.
func shortSpan(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()

	// Durations print as 1h0m0s: cut the zeros at the end.
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
