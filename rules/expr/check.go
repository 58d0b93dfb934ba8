package expr

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// OneOf is case-insensitive equality with one of several texts.
type OneOf map[string]struct{}

func (c OneOf) member(m *Matcher, v *value) bool {
	_, ok := c[string(m.low(v))]
	return ok
}

// AnyOf is one value in several forms, such as different encodings.
type AnyOf []Check

func (c AnyOf) member(m *Matcher, v *value) bool {
	for _, form := range c {
		if form.member(m, v) {
			return true
		}
	}
	return false
}

func (p Pattern) member(m *Matcher, v *value) bool {
	if p.Cased {
		return p.Match(v.text)
	}
	return p.Match(m.low(v))
}

// TimePart compares one part of a timestamp, in UTC.
type TimePart struct {
	Part string // minute, hour, day (of the month), week (of ISO 8601), month or year
	Ordering
}

func (c TimePart) member(_ *Matcher, v *value) bool {
	var t time.Time
	if t.UnmarshalText(v.text) != nil {
		return false
	}

	// Rules mean UTC, whatever the offset in the event.
	t = t.UTC()
	n := 0
	switch c.Part {
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

	return c.holds(cmp.Compare(float64(n), c.Limit))
}

// Network is the modifier cidr: an address in a network.
type Network netip.Prefix

// NewNetwork returns the check for an address prefix, such as 10.0.0.0/8. An IPv4-mapped prefix
// means the IPv4 addresses.
func NewNetwork(text string) (Network, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return Network{}, err
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		// Addresses of events are unmapped as well.
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return Network(prefix.Masked()), nil
}

func (c Network) member(_ *Matcher, v *value) bool {
	addr, err := netip.ParseAddr(string(v.text))
	return err == nil && netip.Prefix(c).Contains(addr.Unmap().WithZone(""))
}

// FieldRef compares with the values of another field of the same event.
type FieldRef struct {
	Other Field
	Shape Shape
	Cased bool
}

func (c FieldRef) member(m *Matcher, v *value) bool {
	others := m.slots[c.Other.slot].values
	for i := range others {
		if others[i].kind <= kindContainer {
			continue
		}

		text, other := v.text, others[i].text
		if !c.Cased {
			text, other = m.low(v), m.low(&others[i])
		}
		if shapeMatch(c.Shape, text, other) {
			return true
		}
	}
	return false
}

// AcceptsEmpty reports whether a check may hold for an empty text.
func AcceptsEmpty(c Check) bool {
	switch c := c.(type) {
	case FieldRef:
		return true
	case AnyOf:
		return slices.ContainsFunc(c, AcceptsEmpty)
	}
	return c.member(&Matcher{}, &value{kind: kindString})
}
