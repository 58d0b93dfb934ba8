package rules

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// modifiers are the modifiers after a field name, parsed.
type modifiers struct {
	names                                     []string
	op                                        string // how a value is compared; "" is equality
	shape                                     expr.Shape
	all, cased, neq, expand, ref              bool
	part                                      string   // of a timestamp
	encodings                                 []string // see encoded
	ignoreCase, multiline, dotAll, hasReFlags bool
}

// splitKey splits the key of a detection item into the field and the names of its modifiers.
func splitKey(key string) (field string, names []string) {
	field, rest, _ := strings.Cut(key, "|")
	if rest != "" {
		names = strings.Split(rest, "|")
	}
	return field, names
}

// ordered reports whether values are compared by size.
func (m *modifiers) ordered() bool {
	return m.op == "lt" || m.op == "lte" || m.op == "gt" || m.op == "gte"
}

// textual reports whether values are compared as texts.
func (m *modifiers) textual() bool { return m.op == "" || m.shape != expr.ShapeExact }

func parseModifiers(names []string) (modifiers, error) {
	mods := modifiers{names: names}
	for _, name := range names {
		if err := mods.add(name); err != nil {
			return mods, err
		}
	}
	return mods, mods.check()
}

// add reads one modifier.
func (m *modifiers) add(name string) error {
	// Comparisons exclude each other; flags and encodings accumulate.
	switch name {
	case "contains":
		m.shape = expr.ShapeContains
		return m.setOp(name)
	case "startswith":
		m.shape = expr.ShapePrefix
		return m.setOp(name)
	case "endswith":
		m.shape = expr.ShapeSuffix
		return m.setOp(name)
	case "re", "cidr", "exists", "lt", "lte", "gt", "gte":
		return m.setOp(name)
	case "i", "m", "s":
		m.hasReFlags = true
		m.ignoreCase = m.ignoreCase || name == "i"
		m.multiline = m.multiline || name == "m"
		m.dotAll = m.dotAll || name == "s"
	case "all":
		m.all = true
	case "cased":
		m.cased = true
	case "neq":
		m.neq = true
	case "expand":
		m.expand = true
	case "fieldref":
		m.ref = true
	case "minute", "hour", "day", "week", "month", "year":
		if m.part != "" {
			return fmt.Errorf("modifiers %s and %s exclude each other", m.part, name)
		}
		m.part = name
	default:
		if !slices.Contains(encodings, name) {
			return fmt.Errorf("unknown modifier %q", name)
		}
		m.encodings = append(m.encodings, name)
	}

	return nil
}

// setOp sets the comparison, of which there can be only one.
func (m *modifiers) setOp(op string) error {
	if m.op != "" {
		return fmt.Errorf("modifiers %s and %s exclude each other", m.op, op)
	}
	m.op = op
	return nil
}

// check refuses combinations that have no meaning.
func (m *modifiers) check() error {
	// A modifier that has no effect would be a rule that does not do what it says.
	switch {
	case m.hasReFlags && m.op != "re":
		return errors.New("modifiers i, m and s follow re")
	case m.cased && !m.textual():
		return fmt.Errorf("modifier cased has no meaning with %s", m.op)
	case m.ref && (!m.textual() || m.part != "" || m.expand):
		return errors.New("modifier fieldref cannot be combined with the others")
	case m.part != "" && !(m.ordered() || m.op == ""):
		return fmt.Errorf("modifier %s compares numbers and cannot be combined with %s", m.part, m.op)
	case len(m.encodings) > 0 && (!m.textual() || m.part != "" || m.ref):
		return fmt.Errorf("modifier %s encodes text, so it goes with contains, startswith, endswith or none",
			m.encodings[0])
	case m.op == "exists" && len(m.names) > 1:
		return errors.New("modifier exists cannot be combined with others")
	}
	return nil
}
