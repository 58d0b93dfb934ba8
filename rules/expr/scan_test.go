package expr

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
)

// randomJSON writes a value with the keys a, b and c, some with dots or escapes,
// and white space between the tokens.
func randomJSON(r *rand.Rand, b *strings.Builder, depth int) {
	space := func() { b.WriteString([]string{"", "", " ", "\n\t"}[r.IntN(4)]) }
	texts := []string{`""`, `"x"`, `"a\"b\\"`, `"\u0041\n"`, `"}]{["`, `"\ud83d\ude00é"`, `"\\"`}
	kind := r.IntN(8)
	if depth == 0 {
		kind = 0 // only an object has fields
	}
	if depth > 5 {
		kind = 2 + r.IntN(6)
	}
	space()
	switch kind {
	case 0, 1:
		opening, closing := "{", "}"
		if kind == 1 {
			opening, closing = "[", "]"
		}
		b.WriteString(opening)
		space()
		for i := range r.IntN(5) {
			if i > 0 {
				b.WriteString(",")
				space()
			}
			if kind == 0 {
				b.WriteString([]string{`"a"`, `"b"`, `"c"`, `"\u0061"`, `"z"`, `"a\"b"`, `"{"`}[r.IntN(7)])
				space()
				b.WriteString(":")
			}
			randomJSON(r, b, depth+1)
		}
		b.WriteString(closing)
	case 2:
		b.WriteString("null")
	case 3:
		b.WriteString([]string{"true", "false"}[r.IntN(2)])
	case 4:
		b.WriteString([]string{"0", "-1.5e+3", "12345678901234567890", "0.00"}[r.IntN(4)])
	default:
		b.WriteString(texts[r.IntN(len(texts))])
	}
	space()
}

// decoded finds the values at a path with jsontext's decoder.
func decoded(t *testing.T, raw, path string) []string {
	t.Helper()
	var list []string
	var read func(d *jsontext.Decoder, path []string, wanted, top bool)
	read = func(d *jsontext.Decoder, path []string, wanted, top bool) {
		here := wanted && len(path) == 0
		switch d.PeekKind() {
		case '{':
			if here {
				list = append(list, "container")
			}
			_, _ = d.ReadToken()
			for d.PeekKind() != '}' {
				key, err := d.ReadToken()
				if err != nil {
					t.Fatalf("%v in %s", err, raw)
				}
				if wanted && len(path) > 0 && key.String() == path[0] {
					read(d, path[1:], true, false)
				} else {
					read(d, nil, false, false)
				}
			}
			_, _ = d.ReadToken()
		case '[':
			if here {
				list = append(list, "container")
			}
			_, _ = d.ReadToken()
			for d.PeekKind() != ']' {
				read(d, path, wanted && !top, false)
			}
			_, _ = d.ReadToken()
		default:
			token, err := d.ReadToken()
			if err != nil {
				t.Fatalf("%v in %s", err, raw)
			}
			if here {
				list = append(list, token.Kind().String()+" "+token.String())
			}
		}
	}
	read(jsontext.NewDecoder(strings.NewReader(raw), jsontext.AllowDuplicateNames(true)), strings.Split(path, "."), true, true)
	return list
}

// TestScanAgreesWithDecoder compares the scanner with jsontext on random JSON.
func TestScanAgreesWithDecoder(t *testing.T) {
	paths := []string{"a", "b.a", "a.b.c", "c.c"}
	fields := NewFields()
	var wanted []Field
	for _, p := range paths {
		wanted = append(wanted, fields.Field(p))
	}
	m := fields.Program([]*Tree{{Leaf: Exists{Field: wanted[0], Want: true}}}, [][]Field{wanted}).Matcher()
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 3000 {
		var b strings.Builder
		randomJSON(r, &b, 0)
		raw := b.String()
		m.Match([]byte(raw))
		for i, f := range wanted {
			var got []string
			for _, v := range m.slots[f.slot].values {
				switch v.kind {
				case kindContainer:
					got = append(got, "container")
				case kindNull:
					got = append(got, "null null")
				default:
					kind := map[kind]string{kindNumber: "number", kindString: "string"}[v.kind]
					if v.kind == kindBool {
						kind = string(v.text)
					}
					got = append(got, fmt.Sprintf("%s %s", kind, v.text))
				}
			}
			found += len(got)
			if diff := cmp.Diff(decoded(t, raw, paths[i]), got); diff != "" {
				t.Fatalf("%s in %s (-decoder +scanner):\n%s", paths[i], raw, diff)
			}
		}
	}
	if found < 2000 {
		t.Fatalf("only %d values; the test shows nothing", found)
	}
}
