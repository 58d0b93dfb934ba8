package rules_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
	"github.com/tenantwatch/tenantwatch/rules/lint"
)

// FuzzLoad gives hostile files to Load: every document has a fate, and what is
// loaded can be run.
func FuzzLoad(f *testing.F) {
	_ = fs.WalkDir(builtin.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			if data, err := fs.ReadFile(builtin.FS(), name); err == nil {
				f.Add(data)
			}
		}
		return nil
	})
	for _, seed := range []string{item("a|re|i: '(?!x)y'"), item("a|fieldref: b"), item("ip|cidr: ['::/0', 10.0.0.0/8]"), item("a: {x}"), item("a|expand: '%x%%x%'"),
		correlation(counting + "condition: {gte: 2}"), base + "title: f\nfilter:\n  rules: any\n  s: {a: 1}\n  condition: not s",
		detection("s: {a: 1}\ncondition: " + strings.Repeat("(", 99) + "s" + strings.Repeat(")", 99)),
		"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "---\n---\n", "\xff\xfe", "? [a]\n: b", "<<: {a: b}", "!!binary x", strings.Repeat("[", 2000), strings.Repeat("- ", 2000)} {
		f.Add([]byte(seed))
	}
	statuses := []rules.Status{rules.StatusEnabled, rules.StatusTuned, rules.StatusWaiting, rules.StatusDisabled, rules.StatusRefused, rules.StatusReplaced}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 {
			return
		}
		file := fstest.MapFS{"rule.yml": &fstest.MapFile{Data: data}}
		set, report := rules.Load(rules.Vars{"x": {"1", "2"}}, file, file)
		loaded := 0
		for _, d := range report.Documents {
			if !slices.Contains(statuses, d.Status) || (d.Status == rules.StatusEnabled) != (d.Reason == "") {
				t.Errorf("fate of a document: %+v", d)
			}
			if d.Runs() && d.Kind != "filter" && d.Kind != "overlay" {
				loaded++
			}
		}
		if loaded != len(set.Rules()) {
			t.Errorf("%d documents are loaded, %d rules are there", loaded, len(set.Rules()))
		}
		ids := map[string]bool{}
		for i, r := range set.Rules() {
			if r.ID == "" || ids[r.ID] {
				t.Errorf("rule %d: id %q", i, r.ID)
			}
			ids[r.ID] = true
			rises := r.Correlation == nil || r.Correlation.Rises()
			if r.Alert != nil && (len(r.Alert.Levels) == 0 || rises && (r.Alert.ResolveBelow < 1 || r.Alert.ResolveBelow > r.Alert.Levels[0].Count)) {
				t.Errorf("rule %d: alert %+v", i, r.Alert)
			}
		}
		m := set.Matcher()
		for _, event := range []string{`{"type":"fp","ip":"192.0.2.1","details":{"a":[1,"x",null]}}`, `{}`, string(data)} {
			for _, i := range m.Match([]byte(event)) {
				if set.Rules()[i].Correlation != nil {
					t.Errorf("a correlation matches an event")
				}
			}
			holdsAsMatch(t, set, m, set.Matcher(), []byte(event))
		}
		for _, f := range lint.Run(rules.Settings{}, file) {
			if f.Severity == "" || f.Check == "" || f.Text == "" || f.File != "rule.yml" {
				t.Errorf("finding %+v", f)
			}
		}
	})
}

// naive is what FuzzMatch compares with: rules, written as Go over a tree that
// encoding/json has read.
var naive = []struct {
	rule string
	want func(e tree) bool
}{
	{item("type: [fp, FU]"), func(e tree) bool { return e.any("type", lowIn("fp", "fu")) }},
	{item("type: 'limit_*'\nip|cidr: [192.0.2.0/24, 2001:db8::/32]"), func(e tree) bool {
		return e.any("type", func(s scalar) bool { return strings.HasPrefix(strings.ToLower(s.text), "limit_") }) &&
			e.any("ip", func(s scalar) bool {
				a, err := netip.ParseAddr(s.text)
				return err == nil && (netip.MustParsePrefix("192.0.2.0/24").Contains(a.Unmap()) || netip.MustParsePrefix("2001:db8::/32").Contains(a.WithZone("")))
			})
	}},
	{item("a: 200"), func(e tree) bool { return e.any("a", isNumber("200")) }},
	{item("a.b|contains|all: [x, Y]"), func(e tree) bool {
		return e.any("a.b", lowContains("x")) && e.any("a.b", lowContains("y"))
	}},
	{item("a.b|cased: X"), func(e tree) bool { return e.any("a.b", func(s scalar) bool { return s.text == "X" }) }},
	{detection("s: {a.b: null}\nt: {c|exists: true}\ncondition: s and not t"), func(e tree) bool {
		return e.null("a.b") && !e.exists("c")
	}},
	{item("data.a{}.b{}|re: '^x+$'"), func(e tree) bool {
		return e.any("a.b", func(s scalar) bool { return regexp.MustCompile("^x+$").MatchString(s.text) })
	}},
	{item("c|gte: 10\nc|lt: 1e3"), func(e tree) bool {
		return e.any("c", ordered(func(f float64) bool { return f >= 10 })) && e.any("c", ordered(func(f float64) bool { return f < 1e3 }))
	}},
	{item("a|fieldref: c"), func(e tree) bool {
		return e.any("a", func(s scalar) bool {
			return e.any("c", lowIn(strings.ToLower(s.text)))
		})
	}},
	{item("a|neq: [x, true, '']"), func(e tree) bool { return !e.any("a", lowIn("x", "true", "")) }},
	{item("a: ['x*y?', null]"), func(e tree) bool {
		return e.null("a") || e.any("a", func(s scalar) bool {
			return regexp.MustCompile(`(?s)\Ax.*y.\z`).MatchString(strings.ToLower(s.text))
		})
	}},
	{item("- needle\n- a: 1"), func(e tree) bool { return e.anywhere(lowContains("needle")) || e.any("a", isNumber("1")) }},
}

type scalar struct {
	text string
	kind byte // " for text, 0 for a number, t for a boolean, n for null, { for an object or array
}

func lowIn(texts ...string) func(scalar) bool {
	return func(s scalar) bool { return slices.Contains(texts, strings.ToLower(s.text)) }
}

func lowContains(text string) func(scalar) bool {
	return func(s scalar) bool { return strings.Contains(strings.ToLower(s.text), text) }
}

// numeric is a number, also in a text.
var numeric = regexp.MustCompile(`\A-?[0-9][0-9]*(\.[0-9]*)?([eE][+-]?[0-9]+)?\z`)

func ordered(holds func(float64) bool) func(scalar) bool {
	return func(s scalar) bool {
		f, err := strconv.ParseFloat(s.text, 64)
		return err == nil && s.kind != 't' && numeric.MatchString(s.text) && holds(f)
	}
}

func isNumber(text string) func(scalar) bool {
	whole := regexp.MustCompile(`\A-?[0-9]+\z`)
	return func(s scalar) bool {
		if s.text == text || whole.MatchString(s.text) {
			return s.text == text
		}
		f, _ := strconv.ParseFloat(text, 64)
		return ordered(func(g float64) bool { return f == g })(s)
	}
}

// tree is a JSON value. Unlike encoding/json's own it keeps repeated keys.
type tree struct {
	scalar
	keys    []string
	members []tree // of an object or array
}

// readTree reads one value. It returns false for one that is too deep.
func readTree(d *json.Decoder, depth int) (tree, bool) {
	token, err := d.Token()
	if err != nil || depth > 50 {
		return tree{}, false
	}
	switch v := token.(type) {
	case string:
		return tree{scalar: scalar{v, '"'}}, true
	case json.Number:
		return tree{scalar: scalar{string(v), 0}}, true
	case bool:
		return tree{scalar: scalar{strconv.FormatBool(v), 't'}}, true
	case nil:
		return tree{scalar: scalar{"", 'n'}}, true
	}
	t := tree{scalar: scalar{"", '{'}}
	object := token == json.Delim('{')
	for d.More() {
		key := ""
		if object {
			k, _ := d.Token()
			key, _ = k.(string)
		}
		m, ok := readTree(d, depth+1)
		if !ok {
			return tree{}, false
		}
		t.keys, t.members = append(t.keys, key), append(t.members, m)
	}
	_, err = d.Token()
	t.keys = t.keys[:len(t.members):len(t.members)]
	if !object {
		t.keys = nil
	}
	return t, err == nil
}

func (t tree) isObject() bool { return t.kind == '{' && (t.keys != nil || len(t.members) == 0) }

// found is what is at a path: the values under keys with dots if there are any.
func (t tree) found(path string) []scalar {
	var flat, nested []scalar
	var visit func(t tree, path string, isFlat, root bool)
	visit = func(t tree, path string, isFlat, root bool) {
		if path == "" {
			if isFlat {
				flat = append(flat, t.scalar)
			} else {
				nested = append(nested, t.scalar)
			}
		}
		for i, m := range t.members {
			switch {
			case t.keys == nil:
				if !root {
					visit(m, path, isFlat, false)
				}
			case path == "":
			default:
				key, dots := t.keys[i], strings.Contains(t.keys[i], ".")
				if root {
					key = strings.TrimPrefix(key, "data.")
				}
				if rest, ok := strings.CutPrefix(path+".", key+"."); ok && key != "" {
					visit(m, strings.TrimSuffix(rest, "."), isFlat || dots, false)
				}
			}
		}
	}
	visit(t, path, false, true)
	for i, key := range t.keys {
		if key == "data" && t.members[i].isObject() {
			visit(t.members[i], path, false, true)
		}
	}
	list := nested
	if flat != nil {
		list = flat
	}
	if path == "type" {
		list = list[:min(len(list), 1)] // the first type counts
	}
	return list
}

func (t tree) any(path string, holds func(scalar) bool) bool {
	return slices.ContainsFunc(t.found(path), func(s scalar) bool { return s.kind != 'n' && s.kind != '{' && holds(s) })
}

func (t tree) exists(path string) bool {
	return slices.ContainsFunc(t.found(path), func(s scalar) bool { return s.kind != 'n' })
}

func (t tree) null(path string) bool {
	list := t.found(path)
	return len(list) == 0 || slices.ContainsFunc(list, func(s scalar) bool { return s.kind == 'n' })
}

func (t tree) anywhere(holds func(scalar) bool) bool {
	if t.kind != '{' {
		return t.kind != 'n' && holds(t.scalar)
	}
	return slices.ContainsFunc(t.members, func(m tree) bool { return m.anywhere(holds) })
}

// types counts where an event says its type.
func (t tree) types() int {
	n := 0
	for i, key := range t.keys {
		switch {
		case key == "type" || key == "data.type":
			n++
		case key == "data" && t.members[i].isObject():
			n += t.members[i].types()
		}
	}
	return n
}

// FuzzMatch gives hostile events to Match, and holds it against the naive rules
// where there is nothing to argue about: valid JSON in valid UTF-8 with one type.
func FuzzMatch(f *testing.F) {
	for _, seed := range []string{`{"type":"fp","ip":"192.0.2.1","a":{"b":["x","Y",null]},"c":12}`, `{"log_id":"1","data":{"type":"LIMIT_wc","ip":"::ffff:192.0.2.9"}}`,
		`{"a.b":"X","a":{"b":"xx"},"c":"1e2"}`, `{"data.a.b":["xy"],"a":200.0}`, `{"a":"\u0058\ud83d\ude00","c":"x😀"}`, `{"a":"\ud800","c":"\ufffd"}`,
		`[1,{"x":"a Needle"}]`, `"needle"`, `null`, `{"x":{"needle":null}}`, `{"a":[[[[{"b":"x"}]]]]}`, ` { "a" : "x\ny!" , "c" : -0.0 } `, `{"a":true,"c":1e400}`,
		`{"a":{"data.b":1,"b.c":2},"data":{"data":{"a":1}},"data":[{"a":1}]}`, `{"type":["fp"],"":1,".":2,"a.":3,".a":4}`, `{"a":1`, `{"type":"fp","a":"`, "\xff{", `{"a":"x\`} {
		f.Add([]byte(seed))
	}
	texts := make([]string, len(naive))
	for i, n := range naive {
		texts[i] = strings.Replace(n.rule, "id: rule", fmt.Sprintf("id: rule%d", i), 1)
	}
	set := mustLoad(f, nil, strings.Join(texts, "\n---\n"))
	byTypeOnly, _ := rules.Load(nil, builtin.FS())
	used, other, explainer := set.Matcher(), byTypeOnly.Matcher(), set.Matcher()
	f.Fuzz(func(t *testing.T, event []byte) {
		before := bytes.Clone(event)
		got := used.Match(event)
		other.Match(event)
		holdsAsMatch(t, set, set.Matcher(), explainer, event)
		if !bytes.Equal(event, before) {
			t.Errorf("%q was changed to %q", before, event)
		}
		if diff := cmp.Diff(append([]int{}, set.Matcher().Match(event)...), append([]int{}, got...)); diff != "" {
			t.Errorf("%q (-fresh matcher +used one):\n%s", event, diff)
		}
		if !json.Valid(event) || !utf8.Valid(event) {
			return
		}
		d := json.NewDecoder(bytes.NewReader(event))
		d.UseNumber()
		e, ok := readTree(d, 0)
		if _, err := d.Token(); !ok || err != io.EOF || e.types() > 1 {
			return
		}
		if !e.isObject() {
			e = tree{scalar: e.scalar, members: e.members} // an array or scalar has no fields
		}
		want := []int{}
		for i, n := range naive {
			if n.want(e) {
				want = append(want, i)
			}
		}
		if diff := cmp.Diff(want, append([]int{}, got...)); diff != "" {
			t.Errorf("%q (-naive +got):\n%s", event, diff)
		}
	})
}

// TestNumberBounds is the edge of what a float64 holds.
func TestNumberBounds(t *testing.T) {
	huge := strings.Repeat("9", 5000)
	for _, c := range []cases{
		{name: "gt", rule: item("n|gt: 1"), yes: []string{fmt.Sprintf(`{"n":%g}`, math.MaxFloat64)}, no: []string{`{"n":1e400}`, `{"n":-1e400}`, `{"n":` + huge + `}`, `{"n":"-"}`, `{"n":"1e"}`}},
		{name: "equal", rule: item("n: 0"), yes: []string{`{"n":0}`, `{"n":-0.0}`, `{"n":0e9}`}, no: []string{`{"n":1e-300}`, `{"n":""}`, `{"n":"-"}`, `{"n":` + huge + `}`}},
		{name: "huge", rule: item("n: " + huge), yes: []string{`{"n":` + huge + `}`}, no: []string{`{"n":` + huge + `9}`, `{"n":1}`}},
	} {
		c.run(t)
	}
}
