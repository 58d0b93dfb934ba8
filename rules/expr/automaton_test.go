package expr

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// FuzzAutomaton holds what an automaton finds against a search for each text.
func FuzzAutomaton(f *testing.F) {
	for _, seed := range [][2]string{{"he,she,his,hers", "ushers"}, {"a,aa,aaa", "aaaa"}, {"ab,bc,abcd,c", "abcabcd"}, {"x", ""}, {"é,\xff,\xc3", "é\xff"}, {"ab,ab", "ab"}, {"abab,ba", "ababab"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, list, text string) {
		texts := slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" })
		a := newAutomaton(texts)
		want, got := map[string]int{}, map[string]int{}
		for i := range text {
			for _, s := range slices.Compact(slices.Sorted(slices.Values(texts))) {
				if strings.HasPrefix(text[i:], s) {
					want[s]++
				}
			}
		}
		for i := 1; i < len(text); i++ { // range goes by characters
			if text[i]&0xC0 == 0x80 {
				for _, s := range slices.Compact(slices.Sorted(slices.Values(texts))) {
					if !validStart(text, i) && strings.HasPrefix(text[i:], s) {
						want[s]++
					}
				}
			}
		}
		a.find([]byte(text), func(found int32) bool { got[texts[found]]++; return false })
		if !maps.Equal(want, got) || a.in([]byte(text)) != (len(want) > 0) {
			t.Errorf("%q in %q: found %v, want %v", texts, text, got, want)
		}
	})
}

// validStart reports whether range over a text stops at an index.
func validStart(text string, at int) bool {
	for i := range text {
		if i == at {
			return true
		}
	}
	return false
}
