package rules

import (
	"cmp"
	"net/netip"
	"time"
)

// oneOf is case-insensitive equality with one of several texts.
type oneOf map[string]struct{}

func (c oneOf) member(m *Matcher, v *value) bool {
	_, ok := c[string(m.low(v))]
	return ok
}

// anyOf is one value in several forms, such as different encodings.
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

// timePart compares one part of a timestamp, in UTC.
type timePart struct {
	part string
	ordering
}

func (c timePart) member(_ *Matcher, v *value) bool {
	var t time.Time
	if t.UnmarshalText(v.text) != nil {
		return false
	}

	// Rules mean UTC, whatever the offset in the event.
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

	return c.holds(cmp.Compare(float64(n), c.limit))
}

// network is the modifier cidr: an address in a network.
type network netip.Prefix

func (c network) member(_ *Matcher, v *value) bool {
	addr, err := netip.ParseAddr(string(v.text))
	return err == nil && netip.Prefix(c).Contains(addr.Unmap().WithZone(""))
}

// fieldRef compares with the values of another field of the same event.
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

		text, other := v.text, others[i].text
		if !c.cased {
			text, other = m.low(v), m.low(&others[i])
		}
		if shapeMatch(c.shape, text, other) {
			return true
		}
	}
	return false
}
