package expr_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/expr"
)

// TestManyTexts is a long list of texts that may be anywhere, also beside other values.
func TestManyTexts(t *testing.T) {
	var list []string
	for i := range 2000 {
		list = append(list, fmt.Sprintf("'Needle%04d'", i))
	}
	set, m := loaded(t, "a|contains: ["+strings.Join(list, ", ")+", 'x*z', '']", "a|contains|cased: ["+strings.Join(list, ", ")+"]", "'|re': '^needle1999$'", "'': ["+strings.Join(list, ", ")+"]",
		"a|contains|neq: ["+strings.Join(list, ", ")+"]")
	many := func(i int) bool { return set.Rules()[i].Match.Leaf.(*expr.Test).SearchesMany() }
	if !many(0) || !many(3) || many(1) {
		t.Error("the lists have other automatons than expected")
	}
	for _, tt := range []struct {
		event string
		want  []int
	}{
		{`{"a":"-NEEDLE1999-"}`, []int{0, 3}},
		{`{"a":"-Needle0000-"}`, []int{0, 1, 3}},
		{`{"a":["y","needle1999"]}`, []int{0, 2, 3}},
		{`{"b":{"c":["needle1999"]}}`, []int{2, 3, 4}},
		{`{"a":"xyz"}`, []int{0, 4}},
		{`{"a":"needle2000"}`, []int{0, 4}}, // the empty text is everywhere
		{`{"needle0001":1}`, []int{4}},
		{`{}`, []int{4}},
	} {
		if got := m.Match([]byte(tt.event)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: matches %v, want %v", tt.event, got, tt.want)
		}
	}
}

// TestIndexAgrees holds what the indexes leave to be tried against the rules as they are
// written, for random rules of every kind, half of which demand a type.
func TestIndexAgrees(t *testing.T) {
	if testing.Short() {
		t.Skip("a matcher has one goroutine: the race detector has nothing to see")
	}
	r := rand.New(rand.NewPCG(5, 9))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	word := func() string {
		return pick("abc", "AbCd", "bcd", "k", "s", "", "é", "x-1", "10.0.0.7", "3", "3.0", "9007199254740993", "true", "ſ", "K", "a b")
	}
	field := func() string { return pick("f1", "f2", "f3.g", "f4", "type2") }
	item := func() string {
		name := field()
		switch r.IntN(16) {
		case 0:
			return name + ": '" + word() + "'"
		case 1:
			return name + ": [null, '" + word() + "']"
		case 2:
			return fmt.Sprintf("%s|%s: ['%s', '%s']", name, pick("contains", "startswith", "endswith", "contains|all", "contains|cased", "contains|neq", "endswith|all"), word(), word())
		case 3:
			return name + "|exists: " + pick("true", "false")
		case 4:
			return name + ": " + pick("'a*d'", "'*b?d*'", "'?'", "'*'", "'*é'", "'**'")
		case 5:
			return name + "|re" + pick("", "|i") + ": '" + pick("b+cd?", "(abc|bcd)", "^(?:ab)*k", "ks", "S$", "a.c", "(?:bc){2,3}|x", "[bc]d", "^$", "(?!x)abc", "a{0}b", "(a|b)c{1,2}") + "'"
		case 6:
			return name + "|" + pick("gt", "lte") + ": 2"
		case 7:
			return name + ": " + pick("3", "9007199254740992", "[3, abc]", "true")
		case 8:
			return name + "|cidr: 10.0.0.0/8"
		case 9:
			return name + "|fieldref: " + field()
		case 10:
			return "'" + pick("", "|all", "|re", "|cased", "|startswith", "|neq") + "': ['" + pick("abc", "bc", "3", "é", "k") + "', '" + pick("b", "cd", "10") + "']"
		case 11:
			return name + "|base64offset|contains: '" + pick("abc", "x") + "'"
		case 12:
			return name + "|windash|contains: '" + pick(" -a", "-x") + "'"
		case 13:
			return name + "|contains: [" + strings.Repeat("'zz"+word()+"', ", 9) + "'" + word() + "']"
		}
		return name + ": ['" + word() + "', '" + word() + "']"
	}
	search := func() string {
		if r.IntN(4) == 0 {
			return "\n    - " + item() + "\n    - " + item() + "\n    - " + pick("abc", "K", "a b")
		}
		a, b := item(), item()
		if ka, _, _ := strings.Cut(a, ":"); strings.HasPrefix(b, ka+":") {
			return "\n    " + a
		}
		return "\n    " + a + "\n    " + b
	}
	value := func() string {
		one := func() string {
			if r.IntN(4) == 0 {
				return pick("null", "3", "3.0", "true", "9007199254740993", "{}", "[]", `{"g":"abc"}`)
			}
			return `"` + pick("", "x") + word() + pick("", "y", "d") + `"`
		}
		if r.IntN(4) == 0 {
			return "[" + one() + "," + one() + "]"
		}
		return one()
	}

	matched, tried, all, indexed := 0, 0, 0, 0
	for range 20 {
		var text strings.Builder
		for i := range 160 {
			typed := ""
			if i%2 == 0 {
				typed = "_w and "
			}
			fmt.Fprintf(&text, "title: r%d\nid: r%d\nlevel: low\ndetection:\n  s: %s\n  t: %s\n  u: %s\n  _w: {type: t}\n  condition: %s(%s)\n---\n", i, i, search(), search(), search(), typed,
				pick("s", "s", "s and t", "s or t", "s and not t", "not s", "1 of them", "all of them", "s and (t or not u)", "not (s and t)"))
		}
		set, report := rules.Load(nil, fstest.MapFS{"r.yml": {Data: []byte(text.String())}})
		if len(set.Rules()) < 80 {
			t.Fatalf("%d rules run: %+v", len(set.Rules()), report.Documents[0])
		}
		m := set.Matcher()
		for range 300 {
			event := []byte(`{"f1":` + value() + `,"f2":` + value() + `,"f3":{"g":` + value() + `},"x":` + value() + pick("", `,"f4":`+value(), `,"type":"t"`, `,"type":"T"`, `,"type":"u"`) + `}`)
			got := slices.Clone(m.Match(event))
			found := m.Indexed()
			indexed, tried, all = indexed+found.Indexes, tried+found.Tried, all+found.Of
			want := m.AsWritten()
			if !slices.Equal(got, want) {
				only := slices.IndexFunc(want, func(i int) bool { return !slices.Contains(got, i) })
				t.Fatalf("%s\nmatches %v, as written %v (%d)\n%s", event, got, want, only, text.String())
			}
			matched += len(got)
		}
	}
	if matched < 20_000 || tried > all*3/4 || indexed < 5000 {
		t.Errorf("%d matches, %d of %d tried, %d looks at an index: that shows nothing", matched, tried, all, indexed)
	}
}

// TestIndexLeavesOut has an event cost no more for rules that it cannot match.
func TestIndexLeavesOut(t *testing.T) {
	var items, typed []string
	for i := range 500 {
		items = append(items, fmt.Sprintf("CommandLine|contains|all: ['tool%04d.exe', ' -x']", i))
		typed = append(typed, fmt.Sprintf("{type: fp, ip: 10.0.%d.%d}", i/256, i%256))
	}
	_, m := loaded(t, typed...)
	if got := m.Match([]byte(`{"type":"fp","ip":"10.0.1.2"}`)); len(got) != 1 || got[0] != 258 || m.Queued() != 1 {
		t.Errorf("of a type: matches %v, of %d tried", got, m.Queued())
	}
	_, m = loaded(t, items...)
	if got := m.Match([]byte(`{"CommandLine":"C:\\TOOL0042.EXE -x"}`)); len(got) != 1 || got[0] != 42 || m.Queued() != 1 {
		t.Errorf("matches %v, of %d tried", got, m.Queued())
	}
	if got := m.Match([]byte(`{"CommandLine":"other -x","Image":"tool0042.exe"}`)); len(got) != 0 || m.Queued() != 0 {
		t.Errorf("matches %v, of %d tried", got, m.Queued())
	}

	event := []byte(`{"CommandLine":["C:\\TOOL0042.EXE -x","tool0001.exe",7],"Image":"tool0042.exe"}`)
	if n := testing.AllocsPerRun(100, func() { m.Match(event) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}
