package rules

import (
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/dlclark/regexp2"
)

// regexTimeout bounds a backtracking match, whose subject an end user may have
// written. An event takes microseconds; this is for what would take minutes.
const regexTimeout = 50 * time.Millisecond

// oneOf is equality, without regard to case, with any of a list of texts.
type oneOf map[string]struct{}

func (c oneOf) member(m *Matcher, v *value) bool {
	_, ok := c[string(m.low(v))]
	return ok
}

// anyOf is one value in several forms.
type anyOf []check

func (c anyOf) member(m *Matcher, v *value) bool {
	for _, form := range c {
		if form.member(m, v) {
			return true
		}
	}
	return false
}

func (p pattern) member(m *Matcher, v *value) bool {
	if p.cased {
		return p.match(v.text)
	}
	return p.match(m.low(v))
}

// number is equality with a number, however the event spells it.
type number struct {
	text string
	f    float64
}

func (c number) member(_ *Matcher, v *value) bool {
	if string(v.text) == c.text {
		return true
	}
	if integer(v.text) && integer([]byte(c.text)) {
		return false // as floating-point numbers, neighbours above 2^53 are equal
	}
	f, ok := v.number()
	return ok && f == c.f
}

func integer(text []byte) bool {
	for i, c := range text {
		if (c < '0' || c > '9') && (i > 0 || c != '-') {
			return false
		}
	}
	return len(text) > 0 && len(text) < 400
}

// number reads a number, or a string that is one.
func (v *value) number() (float64, bool) {
	if v.kind == kindBool || len(v.text) == 0 || len(v.text) > 400 {
		return 0, false
	}
	if c := v.text[0]; c != '-' && (c < '0' || c > '9') {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(v.text), 64)
	return f, err == nil && !math.IsNaN(f)
}

// ordering is one of lt, lte, gt, gte.
type ordering struct {
	op    string
	limit float64
}

func (c ordering) member(_ *Matcher, v *value) bool {
	f, ok := v.number()
	return ok && c.holds(f)
}

func (c ordering) holds(f float64) bool {
	switch c.op {
	case "lt":
		return f < c.limit
	case "lte":
		return f <= c.limit
	case "gt":
		return f > c.limit
	case "gte":
		return f >= c.limit
	}
	return f == c.limit
}

// timePart takes one part of a timestamp, in UTC, before it compares.
type timePart struct {
	part string
	ordering
}

func (c timePart) member(_ *Matcher, v *value) bool {
	var t time.Time
	if t.UnmarshalText(v.text) != nil {
		return false
	}
	t = t.UTC()
	n := 0
	switch c.part {
	case "minute":
		n = t.Minute()
	case "hour":
		n = t.Hour()
	case "day":
		n = t.Day()
	case "week":
		_, n = t.ISOWeek()
	case "month":
		n = int(t.Month())
	case "year":
		n = t.Year()
	}
	return c.holds(float64(n))
}

// network is cidr.
type network netip.Prefix

func (c network) member(_ *Matcher, v *value) bool {
	addr, err := netip.ParseAddr(string(v.text))
	return err == nil && netip.Prefix(c).Contains(addr.Unmap().WithZone(""))
}

// regex is a regular expression in RE2's syntax.
type regex struct{ *regexp.Regexp }

func (c regex) member(_ *Matcher, v *value) bool { return c.Match(v.text) }

// backtracking is one that RE2 cannot take, such as one with a lookahead.
type backtracking struct{ *regexp2.Regexp }

func (c backtracking) member(m *Matcher, v *value) bool {
	ok, err := c.MatchString(string(v.text))
	if err != nil {
		m.timeouts++
	}
	return ok
}

// fieldRef compares with the members of another field of the same event.
type fieldRef struct {
	other Field
	shape shape
	cased bool
}

func (c fieldRef) member(m *Matcher, v *value) bool {
	others := m.slots[c.other.slot].values
	for i := range others {
		if others[i].kind <= kindContainer {
			continue
		}
		a, b := v.text, others[i].text
		if !c.cased {
			a, b = m.low(v), m.low(&others[i])
		}
		if shapeMatch(c.shape, a, b) {
			return true
		}
	}
	return false
}
