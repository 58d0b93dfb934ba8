package rules

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Cap is a limit of Auth0's own: events beyond it do not happen, so no rule that
// asks for them can ever fire. It is taken for a bucket with Burst tokens that gets
// another one Every so often.
type Cap struct {
	Name        string
	Types       []string      // of the events
	Apart       bool          // each of the types has a bucket of its own, or may have
	Description string        // sapi: what the description of the events is; empty for any
	Per         [][]string    // what has a bucket of its own, in the fields by which it may be known
	Burst       int           // events at once
	Every       time.Duration // another one
	Hard        bool          // it always holds, whatever the tenant's settings
	Source      string
}

// Caps are the limits that Auth0 documents.
func Caps() []Cap {
	user, ip := []string{"user_id", "user_name"}, []string{"ip"}
	const mfa = "rate limit configurations of the Authentication API"
	return []Cap{
		{Name: "text messages and calls for MFA", Types: []string{"gd_send_sms", "gd_send_voice"}, Apart: true, Per: [][]string{user}, Burst: 10, Every: time.Hour, Hard: true,
			Source: "10 an hour to a user, then one an hour (" + mfa + ")"},
		{Name: "push notifications for MFA", Types: []string{"gd_send_pn"}, Per: [][]string{user}, Burst: 5, Every: 12 * time.Second, Hard: true,
			Source: "5 a minute to a user (" + mfa + ")"},
		{Name: "wrong recovery codes", Types: []string{"gd_recovery_failed"}, Per: [][]string{user}, Burst: 10, Every: 6 * time.Minute, Hard: true,
			Source: "10 an hour of a user, then gd_recovery_rate_limit_exceed (" + mfa + ")"},
		{Name: "wrong one-time passwords", Types: []string{"gd_auth_failed"}, Per: [][]string{user}, Burst: 10, Every: 6 * time.Minute,
			Source: "10 an hour of a user, then gd_otp_rate_limit_exceed (" + mfa + "); what fails in other ways is not limited"},
		// Who stays below 20 a minute may never be held to the 10 that come after.
		{Name: "logins of one user from one address", Types: []string{"fp", "fu"}, Per: [][]string{ip, user}, Burst: 20, Every: 3 * time.Second, Hard: true,
			Source: "20 a minute, then limit_sul and 10 a minute (rate limit policy, logins of the same user to a database connection)"},
		{Name: "brute-force protection", Types: []string{"fp", "fu"}, Per: [][]string{ip, user}, Burst: 10, Every: 30 * 24 * time.Hour,
			Source: "by default 10 failures of an address with a user, then limit_wc; a login begins the count anew, and the tenant can turn it off or set 1 to 100"},
		{Name: "suspicious IP throttling of logins", Types: []string{"fp", "fu"}, Per: [][]string{ip}, Burst: 100, Every: 864 * time.Second,
			Source: "by default 100 failures of an address a day, then limit_mu; a login begins the count anew, and the tenant can turn it off or change it"},
		{Name: "suspicious IP throttling of signups", Types: []string{"ss", "fs", "signup_pwd_leak"}, Per: [][]string{ip}, Burst: 50, Every: 1200 * time.Millisecond,
			Source: "by default 50 a minute from an address, then limit_mu; the tenant can turn it off or change it"},
		{Name: "dynamic client registration", Types: []string{"sapi"}, Description: "Dynamic client registration", Burst: 5, Every: 200 * time.Millisecond, Hard: true,
			Source: "5 a second (rate limit configurations of the Authentication API)"},
		{Name: "notices of a rate limit", Types: []string{"api_limit", "api_limit_warning"}, Apart: true, Per: [][]string{{"details.limit.bucket"}}, Burst: 1, Every: time.Minute,
			Source: "an event when a bucket is exceeded, another one if it still is after about a minute (rate limit use cases)"},
		{Name: "notices of a performance burst", Types: []string{"appi"}, Burst: 1, Every: 15 * time.Minute,
			Source: "one for each 15 minutes of the burst allowance (rate limit use cases)"},
		{Name: "notices of leaked passwords", Types: []string{"pwd_leak"}, Per: [][]string{ip}, Burst: 1, Every: time.Hour,
			Source: "one an hour and address (log event type codes)"},
	}
}

// Most is how many events there can be in a window (t - timespan, t]. One that comes
// a whole window after the first is no longer in it with that.
func (c *Cap) Most(timespan time.Duration) int {
	return c.Burst + int((timespan+c.Every-1)/c.Every) - 1
}

// limits reports whether events of a type, grouped by some fields, are under the
// cap.
func (c *Cap) limits(base *Rule, typ string, groupBy []Field) bool {
	if !slices.Contains(c.Types, typ) {
		return false
	}
	for _, names := range c.Per {
		if !slices.ContainsFunc(groupBy, func(f Field) bool { return slices.Contains(names, f.Path) }) {
			return false
		}
	}
	return c.Description == "" || base.match != nil && demands(base.match, "description", c.Description)
}

// demands reports whether an expression can be true only where a field has a text.
func demands(x expr, path, text string) bool {
	every := func(x expr) bool { return demands(x, path, text) }
	switch x := x.(type) {
	case and:
		return slices.ContainsFunc(x, every)
	case or:
		return len(x) > 0 && !slices.ContainsFunc(x, func(x expr) bool { return !every(x) })
	case *test:
		if x.field.Path != path || x.negate || x.absent || len(x.checks) != 1 {
			return false
		}
		c, ok := x.checks[0].(oneOf)
		_, has := c[strings.ToLower(text)]
		return ok && has && len(c) == 1
	}
	return false
}

// bucket is a cap as it limits some type; of any where its types share it.
type bucket struct {
	cap int
	typ string
}

// most is how many events at most a correlation can count in a group, by some of the
// caps, and which ones. It is false where something is not limited.
func (r *Rule) most(bases []*Rule, caps []Cap, hard bool) (n int, because []*Cap, ok bool) {
	known := map[bucket]bool{}
	for i, s := range r.Correlation.Sources {
		if bases[i].Types == nil {
			return 0, nil, false
		}
		for _, typ := range bases[i].Types {
			best := -1
			for k := range caps {
				c := &caps[k]
				if (c.Hard || !hard) && c.limits(bases[i], typ, s.GroupBy) && (best < 0 || c.Most(r.Correlation.Timespan) < caps[best].Most(r.Correlation.Timespan)) {
					best = k
				}
			}
			if best < 0 {
				return 0, nil, false
			}
			b := bucket{cap: best}
			if caps[best].Apart {
				b.typ = typ
			}
			if !known[b] {
				known[b] = true
				n += caps[best].Most(r.Correlation.Timespan)
				if !slices.Contains(because, &caps[best]) {
					because = append(because, &caps[best])
				}
			}
		}
	}
	return n, because, len(known) > 0
}

// lowest is the least count that keeps all bounds; a correlation of counts has one.
func (c *Correlation) lowest() float64 {
	n := 1.0
	for _, b := range c.Bounds {
		if b.Op == "gte" || b.Op == "eq" {
			n = max(n, b.Than)
		}
	}
	if !c.Holds(n) {
		n++ // there is a neq
	}
	return n
}

// checkCaps finds what a correlation asks for beyond the caps.
func (l *loader) checkCaps(d *document, r *Rule, caps []Cap) (list []Finding) {
	c := r.Correlation
	if c == nil || c.Type != EventCount && c.Type != ValueCount {
		return nil
	}
	window := c.Timespan
	beyond := func(n float64) (Severity, string) {
		for _, hard := range []bool{true, false} {
			most, because, ok := r.most(l.links[r].rules, caps, hard)
			if !ok || float64(most) >= n {
				continue
			}
			var why []string
			for _, c := range because {
				why = append(why, c.Name+": "+c.Source)
			}
			text := fmt.Sprintf("%v in %s; Auth0 lets %d happen at most: %s", n, shortSpan(window), most, strings.Join(why, "; "))
			if hard {
				return Error, "can never be reached: " + text
			}
			return Warning, "can be reached only where this does not hold: " + text
		}
		return "", ""
	}
	o := d.overlay
	file, n := d.file, d.keys["correlation"]
	if o != nil && o.correlation != nil {
		file = o.file
	}
	if severity, text := beyond(c.lowest()); severity != "" {
		return []Finding{{Severity: severity, Check: "cap", File: file, Line: lineOf(n, "condition"), ID: d.id, Title: d.title, Text: "the threshold " + text}}
	}
	if r.Alert == nil {
		return nil
	}
	file, n = d.file, d.keys[keyAlert]
	if o != nil && o.alert != nil {
		file = o.file
	}
	for _, level := range r.Alert.Levels[1:] {
		if severity, text := beyond(level.Count); severity != "" {
			list = append(list, Finding{Severity: severity, Check: "cap", File: file, Line: lineOf(n, "levels"), ID: d.id, Title: d.title, Text: "the level " + level.Name + " " + text})
		}
	}
	return list
}

// shortSpan writes 1h rather than 1h0m0s, and days.
func shortSpan(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
