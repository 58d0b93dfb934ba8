package scanner

import (
	"hash/maphash"
	"slices"

	"github.com/tenantwatch/tenantwatch/rules/correlation"
)

// maxEarly bounds the occurrences of a rule that are set aside.
const maxEarly = 1 << 16

// earlyOccurrence is an occurrence of an order whose group has no leading occurrence
// yet. It counts only if a leading one arrives late.
type earlyOccurrence struct {
	key        uint64 // hash of the group key
	occurrence correlation.Occurrence
}

// setAside keeps an early occurrence and drops those older than since.
func (s *ruleState) setAside(early earlyOccurrence, since int64) {
	if early.occurrence.At < since {
		return
	}

	s.early = append(s.early, early)
	for s.earlyStart < len(s.early) &&
		(s.early[s.earlyStart].occurrence.At < since || len(s.early)-s.earlyStart > maxEarly) {
		s.earlyStart++
	}
	if s.earlyStart > len(s.early)/2 {
		s.early, s.earlyStart = slices.Delete(s.early, 0, s.earlyStart), 0
	}
}

// insertEarly inserts the occurrences of the current key that were set aside, from a
// time on.
func (e *Engine) insertEarly(g *group, since int64) {
	key := maphash.Bytes(e.seed, e.key)
	for _, early := range g.rule.early[g.rule.earlyStart:] {
		if early.key == key && early.occurrence.At >= since {
			g.window.Insert(early.occurrence, nil, g.rule.value)
		}
	}
}
