package schema_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenantwatch/tenantwatch/schema"
)

func TestSplitArray(t *testing.T) {
	deep := strings.Repeat("[", 1_000_000) + strings.Repeat("]", 1_000_000)
	for _, tt := range []struct {
		name, text string
		want       []string
		fault      string
	}{
		{"nothing in it", " [ ] ", nil, ""},
		{"values of every kind", "[1 ,\n\"a,]\",null, {\"x\":[{}]} ,[ 2 ]]", []string{"1", `"a,]"`, "null", `{"x":[{}]}`, "[ 2 ]"}, ""},
		{"quotes in strings", `["\"","\\","\\\"]",{"a\\":"\\\\"}]`, []string{`"\""`, `"\\"`, `"\\\"]"`, `{"a\\":"\\\\"}`}, ""},
		{"brackets in strings", `[{"a":"}]"},{"b":"[{"}]`, []string{`{"a":"}]"}`, `{"b":"[{"}`}, ""},
		{"a million levels", "[1," + deep + ",2]", []string{"1", deep, "2"}, ""},
		{"no JSON within", "[{a:1},+7,{\"b\":\xff}]", []string{"{a:1}", "+7", "{\"b\":\xff}"}, ""},
		{"nothing between commas", `[,{"a":1},,]`, []string{`{"a":1}`}, ""},
		{"a byte order mark", "\xef\xbb\xbf[1]", []string{"1"}, ""},
		{"no array", `{"a":[1]}`, nil, "does not begin"},
		{"an empty text", "", nil, "does not begin"},
		{"no end", `[{"a":1},`, nil, "too early"},
		{"no end of an object", `[{"a":1},{"b":[`, nil, "too early"},
		{"no end of a string", `[{"a":"]}`, nil, "too early"},
		{"no comma", `[{"a":1}{"b":1}]`, nil, "no comma"},
		{"brackets of two kinds", `[{"a":[1}]},{"b":1}]`, nil, "do not match"},
		{"more", `[1] 2`, nil, "more text"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			parts, err := schema.SplitArray([]byte(tt.text))
			if tt.fault != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fault) {
					t.Errorf("%q, %v; want an error with %q", parts, err, tt.fault)
				}
				return
			}
			var got []string
			for _, p := range parts {
				got = append(got, string(p))
			}
			if diff := cmp.Diff(tt.want, got); err != nil || diff != "" {
				t.Errorf("%v %.300s", err, diff)
			}
		})
	}
}

// FuzzSplitArray: of every JSON array the elements are those that encoding/json has.
func FuzzSplitArray(f *testing.F) {
	for _, text := range []string{"[]", `[1,"\\\"",{"a":[1,{"b":null}]}]`, `[ "]" , [ [ ] ] ]`, "[{}", `[{"a":"\u005d"}]`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := schema.SplitArray(text)
		var want []json.RawMessage
		if json.Unmarshal(text, &want) != nil || want == nil {
			return
		}
		if err != nil || len(got) != len(want) {
			t.Fatalf("%q: %d elements, %v; want %d", text, len(got), err, len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Errorf("element %d: %q, want %q", i, got[i], want[i])
			}
		}
	})
}
