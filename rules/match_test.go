package rules_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenantwatch/tenantwatch/rules"
)

// source is a source with one file, rule.yml.
func source(text string) fstest.MapFS {
	return fstest.MapFS{"rule.yml": &fstest.MapFile{Data: []byte(text)}}
}

// indented moves lines in.
func indented(text, by string) string {
	return by + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+by)
}

// detection is a rule with the search identifiers and the condition of text.
func detection(text string) string {
	return "title: rule under test\nid: rule\nlogsource: {product: auth0}\nlevel: low\ndetection:\n" + indented(text, "  ")
}

// item is a rule with one search identifier.
func item(text string) string {
	return detection("s:\n" + indented(text, "  ") + "\ncondition: s")
}

// mustLoad loads one file whose documents are all right.
func mustLoad(t testing.TB, vars rules.Vars, text string) *rules.Set {
	t.Helper()
	set, report := rules.Load(vars, source(text))
	for _, d := range report.Documents {
		if !d.Runs() {
			t.Fatalf("%s: %s\n%s", d.Status, d.Reason, text)
		}
	}
	if len(report.Documents) == 0 {
		t.Fatalf("no document in\n%s", text)
	}
	return set
}

// cases holds a rule against events that it matches and others.
type cases struct {
	name string
	rule string
	vars rules.Vars
	yes  []string
	no   []string
}

func (c cases) run(t *testing.T) {
	t.Run(c.name, func(t *testing.T) {
		m := mustLoad(t, c.vars, c.rule).Matcher()
		for _, event := range c.yes {
			if len(m.Match([]byte(event))) != 1 {
				t.Errorf("does not match %s", event)
			}
		}
		for _, event := range c.no {
			if len(m.Match([]byte(event))) != 0 {
				t.Errorf("matches %s", event)
			}
		}
	})
}

func TestEquality(t *testing.T) {
	for _, c := range []cases{
		{name: "text without regard to case", rule: item(`a: Straße`),
			yes: []string{`{"a":"Straße"}`, `{"a":"STRAßE"}`, `{"a":"\u0053tra\u00dfe"}`},
			no:  []string{`{"a":"Strasse"}`, `{"a":"Straße "}`, `{"a":null}`, `{}`, `{"b":"Straße"}`, `{"A":"Straße"}`}},
		{name: "cased", rule: item(`a|cased: Ab`), yes: []string{`{"a":"Ab"}`}, no: []string{`{"a":"ab"}`, `{"a":"AB"}`}},
		{name: "any of a list", rule: item("a: [x, Y, 3]"),
			yes: []string{`{"a":"X"}`, `{"a":"y"}`, `{"a":3}`, `{"a":"3"}`, `{"a":3.0}`}, no: []string{`{"a":"z"}`, `{"a":[]}`, `{"a":"x,y"}`}},
		{name: "the empty string is not null", rule: item(`a: ""`),
			yes: []string{`{"a":""}`, `{"a":["b",""]}`}, no: []string{`{"a":null}`, `{}`, `{"a":[]}`, `{"a":{}}`, `{"a":" "}`, `{"a":0}`}},
		{name: "null is absent or null", rule: item(`a: null`),
			yes: []string{`{}`, `{"a":null}`, `{"a":["x",null]}`}, no: []string{`{"a":""}`, `{"a":0}`, `{"a":false}`, `{"a":[]}`, `{"a":{}}`, `{"a":"null"}`}},
		{name: "null or a text", rule: item("a: [null, x]"),
			yes: []string{`{}`, `{"a":null}`, `{"a":"X"}`}, no: []string{`{"a":""}`, `{"a":"y"}`, `{"a":"null"}`}},
		{name: "a text that looks like null", rule: item(`a: "null"`), yes: []string{`{"a":"null"}`}, no: []string{`{"a":null}`, `{}`}},
		{name: "number", rule: item(`a: 200`),
			yes: []string{`{"a":200}`, `{"a":"200"}`, `{"a":200.0}`, `{"a":2e2}`, `{"a":"200.00"}`, `{"a":[1,200]}`},
			no:  []string{`{"a":2000}`, `{"a":20}`, `{"a":"0200"}`, `{"a":-200}`, `{"a":true}`, `{"a":"200 "}`, `{"a":""}`}},
		{name: "neighbors above 2^53 are not equal", rule: item(`a: 9007199254740993`),
			yes: []string{`{"a":9007199254740993}`, `{"a":"9007199254740993"}`}, no: []string{`{"a":9007199254740992}`, `{"a":9007199254740994}`}},
		{name: "a large whole number with a point", rule: item(`a: 9007199254740993.0`), yes: []string{`{"a":9007199254740993}`, `{"a":9007199254740993.00}`}, no: []string{`{"a":9007199254740992}`, `{"a":9007199254740994.0}`}},
		{name: "zero", rule: item(`a: 0`), yes: []string{`{"a":0}`, `{"a":0.0}`, `{"a":-0.0}`, `{"a":0e5}`}, no: []string{`{"a":""}`, `{"a":1e-300}`}},
		{name: "fraction", rule: item(`a: 0.5`), yes: []string{`{"a":0.5}`, `{"a":"0.50"}`, `{"a":5e-1}`}, no: []string{`{"a":0.51}`, `{"a":".5x"}`}},
		{name: "a text in digits is compared as written", rule: item(`a: "200"`), yes: []string{`{"a":200}`, `{"a":"200"}`}, no: []string{`{"a":200.0}`, `{"a":2e2}`}},
		{name: "boolean", rule: item(`a: true`), yes: []string{`{"a":true}`, `{"a":"true"}`, `{"a":"TRUE"}`}, no: []string{`{"a":false}`, `{"a":1}`, `{"a":"yes"}`}},
		{name: "a text that looks like a boolean", rule: item(`a: "false"`), yes: []string{`{"a":false}`, `{"a":"False"}`}, no: []string{`{"a":0}`, `{"a":null}`}},
		{name: "neq", rule: item(`a|neq: x`), yes: []string{`{"a":"y"}`, `{}`, `{"a":null}`}, no: []string{`{"a":"x"}`, `{"a":"X"}`, `{"a":["y","x"]}`}},
		{name: "neq of a list", rule: item("a|neq: [x, y]"), yes: []string{`{"a":"z"}`}, no: []string{`{"a":"x"}`, `{"a":"y"}`}},
		{name: "neq null", rule: item(`a|neq: null`), yes: []string{`{"a":"x"}`, `{"a":""}`}, no: []string{`{}`, `{"a":null}`}},
		{name: "exists", rule: item(`a|exists: true`), yes: []string{`{"a":""}`, `{"a":0}`, `{"a":[]}`, `{"a":{}}`, `{"a":false}`, `{"a":null}`, `{"a":[null]}`}, no: []string{`{}`, `{"b":1}`}},
		{name: "exists not", rule: item(`a|exists: false`), yes: []string{`{}`, `{"b":null}`}, no: []string{`{"a":""}`, `{"a":[]}`, `{"a":null}`}},
		{name: "exists below null", rule: item(`a.b|exists: true`), yes: []string{`{"a":{"b":null}}`, `{"a.b":null}`, `{"a":[{},{"b":null}]}`}, no: []string{`{"a":null}`, `{"a":{}}`, `{"a":[]}`}},
		{name: "exists, of the type", rule: item(`type|exists: true`), yes: []string{`{"type":"s"}`, `{"type":null}`, `{"type":""}`, `{"type":[]}`}, no: []string{`{}`, `{"a":1}`}},
		{name: "all of a list, in any members", rule: item("a|all: [x, y]"), yes: []string{`{"a":["x","y"]}`, `{"a":["Y","z","X"]}`}, no: []string{`{"a":"x"}`, `{"a":["x"]}`, `{}`}},
	} {
		c.run(t)
	}
}

func TestModifiers(t *testing.T) {
	for _, c := range []cases{
		{name: "contains", rule: item(`a|contains: Bc`), yes: []string{`{"a":"abcd"}`, `{"a":"BC"}`, `{"a":["x","xbc"]}`}, no: []string{`{"a":"b c"}`, `{"a":""}`, `{}`}},
		{name: "contains of a number", rule: item(`a|contains: 20`), yes: []string{`{"a":1200}`, `{"a":"x20"}`}, no: []string{`{"a":2}`}},
		{name: "contains, cased", rule: item(`a|contains|cased: Bc`), yes: []string{`{"a":"aBcd"}`}, no: []string{`{"a":"abcd"}`}},
		{name: "contains, all", rule: item("a|contains|all: [x, y]"), yes: []string{`{"a":"-y-x-"}`, `{"a":["x","y"]}`}, no: []string{`{"a":"x"}`, `{"a":"y"}`}},
		{name: "contains, neq", rule: item(`a|contains|neq: x`), yes: []string{`{"a":"y"}`, `{}`}, no: []string{`{"a":"axa"}`}},
		{name: "startswith", rule: item("a|startswith: ['delete:', 'update:']"), yes: []string{`{"a":"delete:users"}`, `{"a":["read:users","UPDATE:users"]}`}, no: []string{`{"a":"xdelete:"}`, `{"a":"delete"}`}},
		{name: "endswith", rule: item(`a|endswith: .com`), yes: []string{`{"a":"x.COM"}`, `{"a":".com"}`}, no: []string{`{"a":"x.com "}`, `{"a":"com"}`, `{"a":"xcom"}`}},
		{name: "base64", rule: item("a|base64: http://evil"), yes: []string{`{"a":"aHR0cDovL2V2aWw="}`}, no: []string{`{"a":"http://evil"}`, `{"a":"aHR0cDovL2V2aWwy"}`}},
		{name: "base64 contains", rule: item("a|base64|contains: foobar"), yes: []string{`{"a":"--Zm9vYmFy--"}`}, no: []string{`{"a":"eGZvb2Jhcg=="}`}},
		{name: "base64offset", rule: item("a|base64offset|contains: http://evil"), yes: []string{`{"a":"aHR0cDovL2V2aWwhIQ=="}`, `{"a":"eGh0dHA6Ly9ldmlsISE="}`, `{"a":"eHhodHRwOi8vZXZpbCEh"}`}, no: []string{`{"a":"aHR0cDovL2dvb2Qh"}`}},
		{name: "base64offset, all", rule: item("a|base64offset|contains|all: [http://evil, passwd]"), yes: []string{`{"a":"LWh0dHA6Ly9ldmlsL3Bhc3N3ZD8="}`}, no: []string{`{"a":"eGh0dHA6Ly9ldmlsISE="}`}},
		{name: "base64 of UTF-16", rule: item("a|wide|base64offset|contains: cmd"), yes: []string{`{"a":"eABjAG0AZAA="}`}, no: []string{`{"a":"eHhjbWR4eA=="}`}},
		{name: "base64 of UTF-16, big end first", rule: item("a|utf16be|base64: cmd"), yes: []string{`{"a":"AGMAbQBk"}`}, no: []string{`{"a":"YwBtAGQA"}`}},
		{name: "base64 of UTF-16 with its mark", rule: item("a|utf16|base64: cé"), yes: []string{`{"a":"//5jAOkA"}`}, no: []string{`{"a":"YwDpAA=="}`}},
		{name: "UTF-16 alone", rule: item("a|utf16le: ab"), yes: []string{`{"a":"a\u0000b\u0000"}`}, no: []string{`{"a":"ab"}`}},
		{name: "base64 of a star", rule: item(`a|base64: 'a\*b'`), yes: []string{`{"a":"YSpi"}`}, no: []string{`{"a":"YXhi"}`}},
		{name: "windash", rule: item("a|windash|contains: ' -p -x-y'"), yes: []string{`{"a":"cmd -p -x-y"}`, `{"a":"cmd /p -x-y"}`, `{"a":"cmd –p ―x-y"}`}, no: []string{`{"a":"cmd p x-y"}`, `{"a":"cmd -p -x/y"}`}},
		{name: "windash, neq", rule: item("a|windash|neq: -p"), yes: []string{`{"a":"p"}`, `{}`}, no: []string{`{"a":"/p"}`, `{"a":["q","—p"]}`}},
		{name: "wildcards within contains", rule: item(`a|contains: 'x*y?z'`), yes: []string{`{"a":"-x--y-z-"}`}, no: []string{`{"a":"xyz"}`, `{"a":"x-yz"}`}},
		{name: "re", rule: item(`a|re: '^ab+\.c'`), yes: []string{`{"a":"abb.cd"}`, `{"a":["z","ab.c"]}`}, no: []string{`{"a":"ABB.C"}`, `{"a":"xab.c"}`, `{"a":"abxc"}`, `{}`}},
		{name: "re of a number", rule: item(`a|re: '^20\d$'`), yes: []string{`{"a":204}`}, no: []string{`{"a":2040}`}},
		{name: "re, i", rule: item(`a|re|i: '^ab$'`), yes: []string{`{"a":"AB"}`}, no: []string{`{"a":"x\nab"}`}},
		{name: "re, m", rule: item(`a|re|m: '^ab$'`), yes: []string{`{"a":"x\nab\ny"}`}, no: []string{`{"a":"xab"}`}},
		{name: "re, s", rule: item(`a|re|s: 'a.b'`), yes: []string{`{"a":"a\nb"}`}, no: []string{`{"a":"a\r\nb"}`}},
		{name: "re without s", rule: item(`a|re: 'a.b'`), yes: []string{`{"a":"axb"}`}, no: []string{`{"a":"a\nb"}`}},
		{name: "re, i, m, s", rule: item(`a|re|i|m|s: '^a.b$'`), yes: []string{`{"a":"x\nA\nB\ny"}`}, no: []string{`{"a":"ab"}`}},
		{name: "re outside RE2", rule: item(`a|re: '(?!ab)x(.)\1'`), yes: []string{`{"a":"xyy"}`}, no: []string{`{"a":"xyz"}`}},
		{name: "braces belong to re", rule: item(`a|re: '^a{2}$'`), yes: []string{`{"a":"aa"}`}, no: []string{`{"a":"a"}`}},
		{name: "re, all", rule: item("a|re|all: ['a$', '^b']"), yes: []string{`{"a":"ba"}`, `{"a":["xa","bx"]}`}, no: []string{`{"a":"b"}`}},
		{name: "cidr", rule: item("ip|cidr: [192.0.2.0/24, 2001:db8::/32]"),
			yes: []string{`{"ip":"192.0.2.0"}`, `{"ip":"192.0.2.255"}`, `{"ip":"::ffff:192.0.2.7"}`, `{"ip":"::ffff:c000:207"}`, `{"ip":"2001:db8::1"}`, `{"ip":"2001:DB8:ffff::"}`, `{"ip":["x","192.0.2.1"]}`},
			no:  []string{`{"ip":"192.0.3.0"}`, `{"ip":"2001:db9::1"}`, `{"ip":"192.0.2"}`, `{"ip":"192.0.2.1/24"}`, `{"ip":""}`, `{"ip":3221225985}`, `{"ip":null}`, `{}`, `{"ip":"::192.0.2.7"}`}},
		{name: "cidr with host bits", rule: item(`ip|cidr: 192.0.2.77/24`), yes: []string{`{"ip":"192.0.2.1"}`}, no: []string{`{"ip":"192.0.3.77"}`}},
		{name: "cidr of one address", rule: item(`ip|cidr: 192.0.2.1/32`), yes: []string{`{"ip":"192.0.2.1"}`}, no: []string{`{"ip":"192.0.2.2"}`}},
		{name: "cidr and a zone", rule: item(`ip|cidr: fe80::/10`), yes: []string{`{"ip":"fe80::1%eth0"}`, `{"ip":"fe80::1"}`}, no: []string{`{"ip":"fec0::1"}`}},
		{name: "cidr in IPv4-mapped form", rule: item(`ip|cidr: '::ffff:192.0.2.0/120'`), yes: []string{`{"ip":"192.0.2.7"}`, `{"ip":"::ffff:192.0.2.7"}`}, no: []string{`{"ip":"192.0.3.7"}`, `{"ip":"::1"}`}},
		{name: "cidr, neq", rule: item(`ip|cidr|neq: 192.0.2.0/24`), yes: []string{`{"ip":"198.51.100.1"}`, `{}`}, no: []string{`{"ip":"192.0.2.1"}`}},
		{name: "lt", rule: item(`n|lt: 10`), yes: []string{`{"n":9.99}`, `{"n":-1}`, `{"n":"9"}`}, no: []string{`{"n":10}`, `{"n":"x"}`, `{"n":""}`, `{"n":null}`, `{}`, `{"n":false}`}},
		{name: "lte", rule: item(`n|lte: 10`), yes: []string{`{"n":10}`, `{"n":1e1}`}, no: []string{`{"n":10.01}`}},
		{name: "gt", rule: item(`n|gt: 10`), yes: []string{`{"n":11}`, `{"n":"1e3"}`}, no: []string{`{"n":10}`, `{"n":"Inf"}`, `{"n":"NaN"}`, `{"n":"ten"}`}},
		{name: "gte", rule: item(`n|gte: -1.5`), yes: []string{`{"n":-1.5}`, `{"n":0}`}, no: []string{`{"n":-1.6}`}},
		{name: "gt, beyond what a floating-point number tells apart", rule: item(`n|gt: 9007199254740992`),
			yes: []string{`{"n":9007199254740993}`, `{"n":"9007199254740993"}`, `{"n":9007199254740992.5}`, `{"n":9.007199254740993e15}`, `{"n":1e300}`}, no: []string{`{"n":9007199254740992}`, `{"n":9007199254740991}`, `{"n":-9007199254740993}`}},
		{name: "lte, the same", rule: item(`n|lte: 9007199254740992`), yes: []string{`{"n":9007199254740992}`, `{"n":9007199254740991}`, `{"n":9007199254740992.0}`}, no: []string{`{"n":9007199254740993}`, `{"n":9007199254740992.0000001}`}},
		{name: "lt, of a negative one", rule: item(`n|lt: -9007199254740992`), yes: []string{`{"n":-9007199254740993}`}, no: []string{`{"n":-9007199254740992}`, `{"n":-9007199254740991}`}},
		{name: "gte, of one with forty digits", rule: item(`n|gte: 1234567890123456789012345678901234567891`), yes: []string{`{"n":1234567890123456789012345678901234567891}`, `{"n":1234567890123456789012345678901234567892}`}, no: []string{`{"n":1234567890123456789012345678901234567890}`}},
		{name: "gt, of a fraction", rule: item(`n|gt: 0.1`), yes: []string{`{"n":0.10000000000000000001}`, `{"n":1.1e-1}`}, no: []string{`{"n":0.1}`, `{"n":0.0999999999999999999999}`, `{"n":1e-1}`, `{"n":0.10}`}},
		{name: "a range", rule: item("n|gte: 10\nn|lt: 20"), yes: []string{`{"n":10}`, `{"n":19}`}, no: []string{`{"n":9}`, `{"n":20}`}},
		{name: "hour", rule: item(`date|hour: 23`), yes: []string{`{"date":"2026-03-04T23:10:00.000Z"}`, `{"date":"2026-03-05T01:10:00+02:00"}`}, no: []string{`{"date":"2026-03-04T22:59:59.999Z"}`, `{"date":"23"}`, `{"date":23}`, `{}`}},
		{name: "minute, gte", rule: item(`date|minute|gte: 30`), yes: []string{`{"date":"2026-03-04T23:30:00Z"}`}, no: []string{`{"date":"2026-03-04T23:29:59Z"}`}},
		{name: "day", rule: item(`date|day: 4`), yes: []string{`{"date":"2026-03-04T23:30:00Z"}`}, no: []string{`{"date":"2026-04-03T00:00:00Z"}`}},
		{name: "week", rule: item(`date|week: 53`), yes: []string{`{"date":"2027-01-01T00:00:00Z"}`}, no: []string{`{"date":"2026-01-01T00:00:00Z"}`}},
		{name: "month", rule: item(`date|month|lt: 3`), yes: []string{`{"date":"2026-02-28T00:00:00Z"}`}, no: []string{`{"date":"2026-03-01T00:00:00Z"}`}},
		{name: "year", rule: item(`date|year: 2026`), yes: []string{`{"date":"2026-12-31T23:59:59Z"}`}, no: []string{`{"date":"2027-01-01T00:00:00Z"}`}},
		{name: "fieldref", rule: item(`a|fieldref: b`), yes: []string{`{"a":"X","b":"x"}`, `{"a":1,"b":"1"}`, `{"a":["p","q"],"b":["q","r"]}`, `{"a":"","b":""}`},
			no: []string{`{"a":"x","b":"y"}`, `{"a":"x"}`, `{"b":"x"}`, `{}`, `{"a":null,"b":null}`}},
		{name: "fieldref, cased", rule: item(`a|fieldref|cased: b`), yes: []string{`{"a":"X","b":"X"}`}, no: []string{`{"a":"X","b":"x"}`}},
		{name: "fieldref, endswith", rule: item(`a|fieldref|endswith: data.b.c`), yes: []string{`{"a":"u@x.ORG","b":{"c":"x.org"}}`}, no: []string{`{"a":"x.org","b":{"c":"u@x.org"}}`}},
		{name: "fieldref takes no wildcards", rule: item(`a|fieldref: b`), yes: []string{`{"a":"*","b":"*"}`}, no: []string{`{"a":"x","b":"*"}`}},
		{name: "fieldref, neq", rule: item(`a|fieldref|neq: b`), yes: []string{`{"a":"x","b":"y"}`, `{}`}, no: []string{`{"a":"x","b":"x"}`}},
	} {
		c.run(t)
	}
}

func TestWildcards(t *testing.T) {
	for _, c := range []cases{
		{name: "any run", rule: item(`a: 'x*z'`), yes: []string{`{"a":"xz"}`, `{"a":"XyyZ"}`, `{"a":"xzz"}`}, no: []string{`{"a":"xza"}`, `{"a":"axz"}`, `{"a":"x"}`}},
		{name: "any one", rule: item(`a: 'x?z'`), yes: []string{`{"a":"xyz"}`, `{"a":"x€z"}`, `{"a":"x?z"}`}, no: []string{`{"a":"xz"}`, `{"a":"xyyz"}`}},
		{name: "only a star", rule: item(`a: '*'`), yes: []string{`{"a":""}`, `{"a":"x"}`, `{"a":0}`}, no: []string{`{}`, `{"a":null}`, `{"a":[]}`}},
		{name: "only stars", rule: item(`a: '**'`), yes: []string{`{"a":""}`, `{"a":"x"}`}, no: []string{`{}`}},
		{name: "at least one character", rule: item(`a: '?*'`), yes: []string{`{"a":"x"}`, `{"a":"xy"}`}, no: []string{`{"a":""}`}},
		{name: "one character", rule: item(`a: '?'`), yes: []string{`{"a":"x"}`, `{"a":"€"}`}, no: []string{`{"a":""}`, `{"a":"xy"}`}},
		{name: "a star at each end", rule: item(`a: '*x*'`), yes: []string{`{"a":"x"}`, `{"a":"axb"}`}, no: []string{`{"a":"y"}`}},
		{name: "overlap", rule: item(`a: 'ab*ba'`), yes: []string{`{"a":"abba"}`, `{"a":"ab-ba"}`}, no: []string{`{"a":"aba"}`}},
		{name: "the last part at the end", rule: item(`a: '*ab*ab'`), yes: []string{`{"a":"abab"}`, `{"a":"xab--ab"}`}, no: []string{`{"a":"ab"}`, `{"a":"ababx"}`}},
		{name: "escaped star", rule: item(`a: 'x\*z'`), yes: []string{`{"a":"x*z"}`}, no: []string{`{"a":"xyz"}`, `{"a":"x\\*z"}`}},
		{name: "escaped question mark", rule: item(`a: 'x\?z'`), yes: []string{`{"a":"x?z"}`}, no: []string{`{"a":"xyz"}`}},
		{name: "escaped backslash, then a star", rule: item(`a: 'x\\*'`), yes: []string{`{"a":"x\\"}`, `{"a":"x\\y"}`}, no: []string{`{"a":"x*"}`, `{"a":"x"}`}},
		{name: "three backslashes and a star", rule: item(`a: 'x\\\*'`), yes: []string{`{"a":"x\\*"}`}, no: []string{`{"a":"x\\y"}`}},
		{name: "a backslash before anything else", rule: item(`a: 'c:\dir\'`), yes: []string{`{"a":"C:\\DIR\\"}`}, no: []string{`{"a":"c:dir"}`}},
		{name: "two backslashes are one", rule: item(`a: 'x\\y'`), yes: []string{`{"a":"x\\y"}`}, no: []string{`{"a":"x\\\\y"}`}},
		{name: "contains of an escaped star", rule: item(`a|contains: '\*'`), yes: []string{`{"a":"x*y"}`}, no: []string{`{"a":"xy"}`}},
		{name: "contains that ends in a backslash", rule: item(`a|contains: 'x\'`), yes: []string{`{"a":"ax\\b"}`}, no: []string{`{"a":"ax*b"}`, `{"a":"x"}`}},
		{name: "cased", rule: item(`a|cased: 'X*z'`), yes: []string{`{"a":"X-z"}`}, no: []string{`{"a":"x-z"}`, `{"a":"X-Z"}`}},
		{name: "beside equality", rule: item("a: [x, 'y*']"), yes: []string{`{"a":"x"}`, `{"a":"yes"}`}, no: []string{`{"a":"xx"}`}},
		{name: "a newline is a character", rule: item(`a: 'x*z'`), yes: []string{`{"a":"x\n\nz"}`}},
	} {
		c.run(t)
	}
}

func TestConditions(t *testing.T) {
	searches := "s1: {a: 1}\ns2: {b: 1}\ns3: {c: 1}\n_s4: {d: 1}\n"
	// For every combination of a, b, c and d the condition says what Go says.
	for _, tt := range []struct {
		condition string
		want      func(a, b, c, d bool) bool
	}{
		{"s1", func(a, b, c, d bool) bool { return a }},
		{"not s1", func(a, b, c, d bool) bool { return !a }},
		{"not not s1", func(a, b, c, d bool) bool { return a }},
		{"s1 and s2", func(a, b, c, d bool) bool { return a && b }},
		{"s1 or s2 and s3", func(a, b, c, d bool) bool { return a || b && c }},
		{"s1 and s2 or s3", func(a, b, c, d bool) bool { return a && b || c }},
		{"(s1 or s2) and s3", func(a, b, c, d bool) bool { return (a || b) && c }},
		{"not s1 and s2", func(a, b, c, d bool) bool { return !a && b }},
		{"not (s1 and s2)", func(a, b, c, d bool) bool { return !(a && b) }},
		{"s1 and not s2 or not s3", func(a, b, c, d bool) bool { return a && !b || !c }},
		{"((s1))and(not(s2))", func(a, b, c, d bool) bool { return a && !b }},
		{"s1 AND NOT s2 Or s3", func(a, b, c, d bool) bool { return a && !b || c }},
		{"1 of them", func(a, b, c, d bool) bool { return a || b || c }},
		{"any of them", func(a, b, c, d bool) bool { return a || b || c }},
		{"all of them", func(a, b, c, d bool) bool { return a && b && c }},
		{"1 of s*", func(a, b, c, d bool) bool { return a || b || c }},
		{"all of s?", func(a, b, c, d bool) bool { return a && b && c }},
		{"1 of _s*", func(a, b, c, d bool) bool { return d }},
		{"all of *", func(a, b, c, d bool) bool { return a && b && c }},
		{"1 of *1", func(a, b, c, d bool) bool { return a }},
		{"1 of *s*", func(a, b, c, d bool) bool { return a || b || c }},
		{"all of _*", func(a, b, c, d bool) bool { return d }},
		{"all of s1", func(a, b, c, d bool) bool { return a }},
		{"not 1 of them", func(a, b, c, d bool) bool { return !(a || b || c) }},
		{"s1 and not all of s*", func(a, b, c, d bool) bool { return a && !(a && b && c) }},
		{"[s1 and s2, s3]", func(a, b, c, d bool) bool { return a && b || c }}, // Sigma 1: a list of alternatives
	} {
		t.Run(tt.condition, func(t *testing.T) {
			m := mustLoad(t, nil, detection(searches+"condition: "+tt.condition)).Matcher()
			for bits := range 16 {
				a, b, c, d := bits&1 > 0, bits&2 > 0, bits&4 > 0, bits&8 > 0
				event := fmt.Sprintf(`{"a":%d,"b":%d,"c":%d,"d":%d}`, bits&1, bits>>1&1, bits>>2&1, bits>>3&1)
				if got := len(m.Match([]byte(event))) == 1; got != tt.want(a, b, c, d) {
					t.Errorf("%s: got %v", event, got)
				}
			}
		})
	}
}

func TestSearchIdentifiers(t *testing.T) {
	for _, c := range []cases{
		{name: "a map is a conjunction", rule: item("a: 1\nb: 2"), yes: []string{`{"a":1,"b":2}`}, no: []string{`{"a":1}`, `{"b":2}`}},
		{name: "a list of maps is an alternative", rule: item("- a: 1\n  b: 2\n- c: 3"), yes: []string{`{"a":1,"b":2}`, `{"c":3}`}, no: []string{`{"a":1}`, `{"b":2}`}},
		{name: "keywords", rule: item("- Foo\n- b*r"), yes: []string{`{"x":{"y":["a foo b"]}}`, `{"x":"bxr"}`, `{"x":"f\u006fo"}`, `[{"x":"foo"}]`},
			no: []string{`{"foo":"x"}`, `{"x":"fo o"}`, `{"x" : null}`, `{"foo" : 1}`}},
		{name: "keywords are found in numbers and booleans", rule: item("- 404\n- 'true'"), yes: []string{`{"x":14045}`, `{"x":true}`}, no: []string{`{"x":40}`, `{"x":false}`}},
		{name: "one keyword", rule: detection("s: foo\ncondition: s"), yes: []string{`{"x":"a foo"}`}, no: []string{`{"x":"fo"}`}},
		{name: "all keywords", rule: item("'|all': [foo, bar]"), yes: []string{`{"x":"foo","y":"bar"}`, `{"x":"barfoo"}`}, no: []string{`{"x":"foo"}`}},
		{name: "keywords among maps", rule: item("- foo\n- a: 1"), yes: []string{`{"x":"foo"}`, `{"a":1}`}, no: []string{`{"a":2}`}},
		{name: "an unused identifier changes nothing", rule: detection("s: {a: 1}\nt: {b: 1}\ncondition: s"), yes: []string{`{"a":1}`}, no: []string{`{"b":1}`}},
	} {
		c.run(t)
	}
}

func TestFields(t *testing.T) {
	for _, c := range []cases{
		{name: "nested", rule: item(`a.b.c: 1`), yes: []string{`{"a":{"b":{"c":1}}}`, `{"z":0,"a":{"y":[{}],"b":{"x":"}","c":1}}}`}, no: []string{`{"a":{"c":1}}`, `{"b":{"c":1}}`, `{"c":1}`, `{"a":{"b":1}}`}},
		{name: "hyphens", rule: item(`a.pre-user-registration.x: 1`), yes: []string{`{"a":{"pre-user-registration":{"x":1}}}`}},
		{name: "a flat key", rule: item(`a.b: 1`), yes: []string{`{"a.b":1}`, `{"data.a.b":1}`, `{"a":{"b":1}}`}, no: []string{`{"a.c":1}`}},
		{name: "a flat key wins", rule: item(`a.b: 1`), yes: []string{`{"a":{"b":2},"a.b":1}`, `{"a.b":1,"a":{"b":2}}`}, no: []string{`{"a":{"b":1},"a.b":2}`, `{"a.b":2,"a":{"b":1}}`}},
		{name: "half a flat key", rule: item(`a.b.c: 1`), yes: []string{`{"a.b":{"c":1}}`, `{"a":{"b.c":1}}`}, no: []string{`{"a.b":1}`}},
		{name: "an array fans out", rule: item(`a.b: x`), yes: []string{`{"a":{"b":["y","x"]}}`, `{"a":[{"b":"y"},{"b":"x"}]}`, `{"a":[[{"b":["x"]}]]}`}, no: []string{`{"a":{"b":[]}}`, `{"a":[{"c":"x"}]}`, `{"a":["x"]}`}},
		{name: "braces", rule: item(`a{}.b{}: x`), yes: []string{`{"a":{"b":["y","x"]}}`, `{"a":[{"b":"x"}]}`, `{"a":{"b":"x"}}`}, no: []string{`{"a":["x"]}`}},
		{name: "a body that is an array", rule: item(`a.body{}: all`), yes: []string{`{"a":{"body":["all"]}}`}, no: []string{`{"a":{"body":{"x":"all"}}}`}},
		{name: "not of an array is none of it", rule: detection("s: {a: x}\ncondition: not s"), yes: []string{`{"a":["y"]}`, `{}`, `{"a":[]}`}, no: []string{`{"a":["y","x"]}`}},
		{name: "two fields of an array are held apart", rule: item("a.b: 1\na.c: 1"), yes: []string{`{"a":[{"b":1},{"c":1}]}`, `{"a":[{"b":1,"c":1}]}`}, no: []string{`{"a":[{"b":1}]}`}},
		{name: "the envelope, in the rule", rule: item("data.type: fp\ndata.details.x: 1"),
			yes: []string{`{"type":"fp","details":{"x":1}}`, `{"log_id":"9","data":{"type":"fp","details":{"x":1}}}`, `{"data":{"details":{"x":1},"type":"fp"},"log_id":"9"}`},
			no:  []string{`{"type":"fp"}`, `{"data":{"type":"fp"}}`, `{"data":{"data":{"type":"fp","details":{"x":1}}}}`}},
		{name: "the envelope, in the event", rule: item("type: fp\nx: 1"), yes: []string{`{"data":{"type":"fp","x":1}}`, `{"type":"fp","x":1}`}, no: []string{`{"other":{"type":"fp","x":1}}`, `{"data":[{"type":"fp","x":1}]}`}},
		{name: "data inside details is no envelope", rule: item(`details.data.x: 1`), yes: []string{`{"details":{"data":{"x":1}}}`}, no: []string{`{"details":{"x":1}}`}},
		{name: "a field and what lies below it", rule: item("a: 1\na.b: 2"), yes: []string{`{"a":[1,{"b":2}]}`}, no: []string{`{"a":1}`, `{"a":{"b":2}}`}},
		{name: "a repeated key counts each time", rule: item("a: [x]"), yes: []string{`{"a":"y","a":"x"}`, `{"a":"x","a":"y"}`}},
		{name: "an escaped key", rule: item(`abc: 1`), yes: []string{`{"a\u0062c":1}`}, no: []string{`{"a\\u0062c":1}`}},
		{name: "the type, anywhere", rule: item("type: fp\nx: 1"), yes: []string{`{"x":1,"type":"FP"}`, `{"type":"fp","x":1}`}, no: []string{`{"x":1}`, `{"x":1,"type":"f"}`, `{"x":1,"type":null}`}},
		{name: "white space", rule: item("a.b: 1"), yes: []string{" \t\r\n{ \"x\" : [ ] , \"a\" :\n{ \"b\" : 1 } } \n"}},
		{name: "what a string looks like", rule: item("a: 1"), yes: []string{`{"x":"\"}","y":"\\","z":"{[","a":1}`}, no: []string{`{"x":"\",\"a\":1"}`}},
	} {
		c.run(t)
	}
}

func TestVariables(t *testing.T) {
	vars := rules.Vars{"one": {"x"}, "two": {"x", "Y"}, "none": {}, "star": {`a*?\`}, "net": {"192.0.2.0/24", "2001:db8::/32"}, "dot": {"a.b"},
		"2 of Them-é.x": {"v"}, " of ": {"/"}}
	for _, c := range []cases{
		{name: "braces", rule: item(`a: '{two}'`), yes: []string{`{"a":"X"}`, `{"a":"y"}`}, no: []string{`{"a":"{two}"}`, `{"a":"z"}`}},
		{name: "braces without quotes are a map to YAML", rule: item(`a: {two}`), yes: []string{`{"a":"X"}`}, no: []string{`{"a":"two"}`}},
		{name: "in a list", rule: item(`a: ['{two}', z]`), yes: []string{`{"a":"y"}`, `{"a":"z"}`}, no: []string{`{"a":"a"}`}},
		{name: "within text, braces are text", rule: item(`a: 'p-{two}-{one}'`), yes: []string{`{"a":"p-{two}-{one}"}`}, no: []string{`{"a":"p-y-x"}`, `{"a":"p-x-x"}`}},
		{name: "the host of a URL, as Auth0's catalog has it", rule: item(`a: 'https://{two}/api'`), yes: []string{`{"a":"https://x/api"}`, `{"a":"https://y/api"}`}, no: []string{`{"a":"https://{two}/api"}`}},
		{name: "before other text", rule: item(`a: '{two}/x'`), yes: []string{`{"a":"{two}/x"}`}, no: []string{`{"a":"x/x"}`}},
		{name: "a GUID", rule: item(`a: '{B1B2C3D4-0000-4000-8000-0000000000FF}'`), yes: []string{`{"a":"{b1b2c3d4-0000-4000-8000-0000000000ff}"}`}},
		{name: "a shell's variable", rule: item(`a|contains: '${IFS}'`), yes: []string{`{"a":"x${ifs}y"}`}},
		{name: "for another product", rule: strings.Replace(item(`a: '{two}'`), "product: auth0", "category: proxy", 1), yes: []string{`{"a":"{two}"}`}, no: []string{`{"a":"x"}`}},
		{name: "expand: a name with anything but percent", rule: item(`a|expand: '%2 of Them-é.x%'`), yes: []string{`{"a":"v"}`}, no: []string{`{"a":"%2 of them-é.x%"}`}},
		{name: "expand: escaped", rule: item(`a|expand: '\%two%one%'`), yes: []string{`{"a":"%twox"}`}, no: []string{`{"a":"\\%twox"}`, `{"a":"%two%one%"}`}},
		{name: "expand: an escaped backslash before", rule: item(`a|expand: 'c:\\%one%'`), yes: []string{`{"a":"c:\\x"}`}, no: []string{`{"a":"c:\\%one%"}`}},
		{name: "expand: both ends escaped", rule: item(`a|expand: '\%one\%'`), yes: []string{`{"a":"%one%"}`}, no: []string{`{"a":"x"}`}},
		{name: "expand: one that is alone", rule: item(`a|expand: '100% of %one%%'`), yes: []string{`{"a":"100/one%%"}`}},
		{name: "expand, re", rule: item(`a|expand|re: '^\%%one%\d$'`), yes: []string{`{"a":"%x7"}`}, no: []string{`{"a":"x7"}`}},
		{name: "expand", rule: item(`a|expand: '%two%!'`), yes: []string{`{"a":"y!"}`}, no: []string{`{"a":"%two%!"}`}},
		{name: "expand leaves braces", rule: item(`a|expand: '{two}%one%'`), yes: []string{`{"a":"{two}x"}`}},
		{name: "percent signs without expand", rule: item(`a: '%two%'`), yes: []string{`{"a":"%two%"}`}, no: []string{`{"a":"x"}`}},
		{name: "an empty variable matches nothing", rule: item(`a: '{none}'`), no: []string{`{}`, `{"a":null}`, `{"a":""}`, `{"a":"{none}"}`}},
		{name: "an empty variable beside a value", rule: item(`a: ['{none}', z]`), yes: []string{`{"a":"z"}`}, no: []string{`{"a":""}`}},
		{name: "not an empty variable matches all", rule: detection("s: {a: '{none}'}\ncondition: not s"), yes: []string{`{}`, `{"a":"x"}`}},
		{name: "an empty variable and all", rule: item(`a|contains|all: '{none}'`), no: []string{`{"a":""}`, `{}`}},
		{name: "wildcards in a variable are text", rule: item(`a: '{star}'`), yes: []string{`{"a":"a*?\\"}`}, no: []string{`{"a":"abc"}`, `{"a":"a*?"}`}},
		{name: "contains", rule: item(`a|contains: '{star}'`), yes: []string{`{"a":"-a*?\\-"}`}, no: []string{`{"a":"-abc-"}`}},
		{name: "cidr", rule: item(`ip|cidr: '{net}'`), yes: []string{`{"ip":"192.0.2.1"}`, `{"ip":"2001:db8::1"}`}, no: []string{`{"ip":"192.0.3.1"}`}},
		{name: "re, expand", rule: item(`a|re|expand: '^%dot%$'`), yes: []string{`{"a":"a.b"}`}, no: []string{`{"a":"axb"}`}},
		{name: "all", rule: item(`a|contains|all: '{two}'`), yes: []string{`{"a":"xy"}`}, no: []string{`{"a":"x"}`}},
		{name: "a default in the document", rule: "x-tenantwatch-vars: {own: [p, q], one: z}\n" + item("a: '{own}'\nb: '{one}'"),
			yes: []string{`{"a":"q","b":"x"}`}, no: []string{`{"a":"q","b":"z"}`, `{"a":"x","b":"x"}`}},
	} {
		c.vars = vars
		c.run(t)
	}
}

// TestMalformedEvents holds the promise that Match sees what comes before the
// fault.
func TestMalformedEvents(t *testing.T) {
	m := mustLoad(t, nil, item("a: 1")).Matcher()
	for event, want := range map[string]bool{
		`{"a":1`: true, `{"a":1,`: true, `{"a":1}}`: true, `{"a":1,"b":"`: true, `{"a":1 "b"`: true, `{"a":1,"b":{"c":[`: true,
		``: false, ` `: false, `{`: false, `{"a`: false, `{"a"`: false, `{"a":`: false, `{"a" 1}`: false, `{"b" "a":1}`: false, `{a:1}`: false,
		`{"b":"\`: false, `null`: false, `1`: false, `"a"`: false, `<html>`: false, "\x00\xff": false, `[{"a":1}]`: false, `{"b":[1}`: false,
	} {
		if got := len(m.Match([]byte(event))) == 1; got != want {
			t.Errorf("%q: got %v", event, got)
		}
	}
	deep := strings.Repeat(`{"a":[`, 100_000)
	m.Match([]byte(deep))
	m.Match([]byte(`{"b":` + deep))
}

// TestMatchesAreIndependent runs one matcher over events in turn: nothing of one
// is left for the next.
func TestMatchesAreIndependent(t *testing.T) {
	set := mustLoad(t, nil, strings.Join([]string{item("type: fp\na: X"), detection("s: {b|exists: true}\ncondition: not s"), item("a: y\nb: z")}, "\n---\n"))
	events := []string{`{"type":"fp","a":"X"}`, `{"b":1}`, `{"b":"Z","a":["\u0059"]}`, `{}`, `{"type":"fp","a":"x`, `{"type":"other"}`}
	var want [][]int
	for _, e := range events {
		want = append(want, slices.Clone(set.Matcher().Match([]byte(e))))
	}
	m := set.Matcher()
	for range 3 {
		for i, e := range events {
			if diff := cmp.Diff(want[i], m.Match([]byte(e)), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-fresh +used):\n%s", e, diff)
			}
		}
	}
}

func TestValue(t *testing.T) {
	set := mustLoad(t, nil, item("a|exists: true")+"\nx-tenantwatch-alert: {group-by: ['data.u.v{}', n]}")
	by := set.Rules()[0].Alert.GroupBy
	if by[0].Path != "u.v" || by[1].Path != "n" {
		t.Fatalf("group-by is %v", by)
	}
	m := set.Matcher()
	for _, tt := range []struct {
		event string
		want  []string
	}{
		{`{"a":1,"u":{"v":"x\ty"}}`, []string{"x\ty true"}},
		{`{"a":1,"u":{"v":12.50}}`, []string{"12.50 false"}},
		{`{"a":1,"u":{"v":true}}`, []string{"true false"}},
		{`{"a":1,"u":{"v":[null,{},[],"Second",3]}}`, []string{"Second true", "3 false"}},
		{`{"a":1,"u":{"v":""}}`, []string{" true"}}, // not as if there were nothing
		{`{"a":1,"u":{"v":null}}`, nil},
		{`{"a":1}`, nil},
	} {
		if len(m.Match([]byte(tt.event))) != 1 {
			t.Errorf("%s does not match", tt.event)
		}
		var got []string
		for _, text := range m.AppendTexts(nil, by[0]) {
			got = append(got, fmt.Sprintf("%s %v", text.Text, text.Quoted))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.event, diff)
		}
	}
}

// TestTypes is the index by event type: what a rule says of it, and that rules
// which say nothing see every event.
func TestTypes(t *testing.T) {
	for _, tt := range []struct {
		rule string
		want []string
	}{
		{item("type: FP"), []string{"fp"}},
		{item("data.type: [s, FP]\na: 1"), []string{"fp", "s"}},
		{item("type|startswith: limit_"), []string{"limit_*"}},
		{item("type|endswith: _wc"), []string{"*_wc"}},
		{item("type|contains: imi"), []string{"*imi*"}},
		{item("type: 'l*t_?c'"), []string{"l*t_?c"}},
		{item("- type: a\n- type: b\n  c: 1"), []string{"a", "b"}},
		{item("- type: a\n- c: 1"), nil},
		{item("type|neq: a"), nil},
		{item("type: [null, a]"), nil},
		{item("type|re: a"), nil},
		{item("type|cased: a"), nil},
		{item("a: 1"), nil},
		{item("- foo"), nil},
		{detection("s: {type: a}\nf: {type: [a, b]}\ncondition: s and not f"), []string{"a"}},
		{detection("s: {type: a}\ncondition: not s"), nil},
		{detection("s: {type: [a, b, c]}\nt: {type: [b, d]}\ncondition: s and t"), []string{"b", "d"}},
	} {
		if diff := cmp.Diff(tt.want, mustLoad(t, nil, tt.rule).Rules()[0].Types); diff != "" {
			t.Errorf("%s\n-want +got\n%s", tt.rule, diff)
		}
	}
}

// TestRegexTimeout gives a backtracking expression what it cannot finish.
func TestRegexTimeout(t *testing.T) {
	set, report := rules.Load(nil, source(item(`a|re: '^(?=(a+)+$)(a+)+b$'`)))
	if w := report.Documents[0].Warnings; len(w) != 1 || !strings.Contains(w[0], "rule.yml:7: RE2 does not support the regular expression") {
		t.Errorf("warnings are %q", w)
	}
	m := set.Matcher()
	if got := m.Match([]byte(`{"a":"` + strings.Repeat("a", 5000) + `b"}`)); len(got) != 0 || m.Timeouts() != 1 {
		t.Errorf("got %v, %d timeouts", got, m.Timeouts())
	}
	if m.Match([]byte(`{"a":"c"}`)); m.Timeouts() != 1 {
		t.Errorf("%d timeouts", m.Timeouts())
	}
}

// TestKeywordModifiers has the values of keywords modified as those of fields are.
func TestKeywordModifiers(t *testing.T) {
	for _, c := range []cases{
		{name: "contains", rule: item("'|contains': Needle"), yes: []string{`{"a":"a NEEDLE."}`, `{"a":{"b":[1,"needles"]}}`}, no: []string{`{"needle":1}`, `{"a":"need"}`}},
		{name: "contains, all, in different places", rule: item("'|contains|all': [x1, y1]"), yes: []string{`{"a":"x1","b":"y1"}`, `{"a":"y1 x1"}`}, no: []string{`{"a":"x1"}`, `{"x1":"y1"}`}},
		{name: "startswith", rule: item("'|startswith': ab"), yes: []string{`{"a":"ABC"}`}, no: []string{`{"a":"xab"}`}},
		{name: "endswith", rule: item("'|endswith': [ab, .exe]"), yes: []string{`{"a":"xAB"}`, `{"b":"y.EXE"}`}, no: []string{`{"a":"abx"}`}},
		{name: "cased", rule: item("'|cased': Needle"), yes: []string{`{"a":"xNeedle"}`}, no: []string{`{"a":"needle"}`}},
		{name: "re", rule: item("'|re': '^n[ei]+dle$'"), yes: []string{`{"a":"needle"}`, `{"a":["x",["nidle"]]}`}, no: []string{`{"a":"xneedle"}`, `{"a":"NEEDLE"}`}},
		{name: "re, i", rule: item("'|re|i': 'needle\\d'"), yes: []string{`{"a":"xNEEDLE1"}`}, no: []string{`{"a":"needle"}`}},
		{name: "re that backtracks", rule: item("'|re': 'n(?!x)e'"), yes: []string{`{"a":"ne"}`}, no: []string{`{"a":"nx"}`}},
		{name: "base64offset", rule: item("'|base64offset|contains': http://evil"), yes: []string{`{"a":"x eGh0dHA6Ly9ldmlsISE="}`}, no: []string{`{"a":"http://evil"}`}},
		{name: "windash", rule: item("'|windash|contains': ' -enc'"), yes: []string{`{"a":"x /enc"}`, `{"a":"x -ENC"}`}, no: []string{`{"a":"x enc"}`}},
		{name: "wide, base64", rule: item("'|wide|base64offset|contains': cmd"), yes: []string{`{"a":"eABjAG0AZAA="}`}, no: []string{`{"a":"cmd"}`}},
		{name: "cidr", rule: item("'|cidr': 192.0.2.0/24"), yes: []string{`{"x":{"y":"192.0.2.9"}}`}, no: []string{`{"x":"192.0.3.9"}`}},
		{name: "gt", rule: item("'|gt': 100"), yes: []string{`{"x":101}`}, no: []string{`{"x":100,"y":"x"}`, `{"x":true}`}},
		{name: "neq", rule: item("'|neq': needle"), yes: []string{`{"a":"x"}`, `{}`}, no: []string{`{"a":"x","b":["a needle"]}`}},
		{name: "expand", rule: item("'|expand': '%names%'"), vars: rules.Vars{"names": {"ann", "bob"}}, yes: []string{`{"a":"x Ann"}`, `{"b":"bob"}`}, no: []string{`{"a":"%names%"}`}},
		{name: "wildcards", rule: item("'|all': ['a*b', '?x']"), yes: []string{`{"a":"-a-b-","c":"yx"}`}, no: []string{`{"a":"ab","c":"x"}`}},
		{name: "a number", rule: item("'': 4625"), yes: []string{`{"a":4625}`, `{"a":"x4625x"}`}, no: []string{`{"4625":1}`}},
	} {
		c.run(t)
	}
}

// TestIDs compares ids as UUIDs wherever one refers to a rule.
func TestIDs(t *testing.T) {
	const lower, upper, braces, urn = "0aef3c00-1111-4abc-8def-00000000000a", "0AEF3C00-1111-4ABC-8DEF-00000000000A", "'{0AEF3C00-1111-4abc-8def-00000000000a}'", "urn:UUID:0aef3c00-1111-4ABC-8def-00000000000a"
	rule := func(id string) string {
		return "title: base\nid: " + id + "\nlogsource: {product: auth0}\nlevel: low\ndetection:\n  s: {type: fp}\n  condition: s\n"
	}
	for _, ref := range []string{lower, upper, braces, urn} {
		text := rule(upper) + "---\ntitle: c\nid: c\nlevel: low\ncorrelation: {type: event_count, rules: [" + ref + "], group-by: [who], aliases: {who: {" + ref + ": ip}}, timespan: 1h, condition: {gte: 2}}\n" +
			"---\ntitle: f\nlogsource: {product: auth0}\nfilter:\n  rules: [" + ref + "]\n  s: {ip: x}\n  condition: not s\n"
		set := mustLoad(t, nil, text)
		if len(set.Rules()) != 2 || set.Rules()[0].ID != upper || set.Rules()[1].Correlation.Sources[0].GroupBy[0].Path != "ip" {
			t.Errorf("%s: %+v", ref, set.Rules())
		}
		if m := set.Matcher(); len(m.Match([]byte(`{"type":"fp","ip":"x"}`))) != 0 {
			t.Errorf("%s: the filter tunes another rule", ref)
		}

		// A later source, and an overlay, mean the same rule.
		_, report := rules.Load(nil, fstest.MapFS{"a.yml": file(rule(lower))}, fstest.MapFS{"b.yml": file(rule(ref))})
		if report.Count(rules.StatusReplaced) != 1 {
			t.Errorf("%s does not replace %s", ref, lower)
		}
		_, report = rules.Load(nil, fstest.MapFS{"a.yml": file(rule(lower)), "o.overlay.yml": file("rules:\n  " + ref + ": {enabled: false, reason: Why.}\n")})
		if report.Count(rules.StatusDisabled) != 1 {
			t.Errorf("%s: the overlay changes another rule: %+v", ref, report.Documents)
		}
		_, report = rules.Load(nil, source(rule(lower)+"---\n"+rule(ref)))
		if !slices.ContainsFunc(report.Documents, func(d rules.Document) bool {
			return strings.Contains(strings.Join(d.Warnings, ""), "is used by another document")
		}) {
			t.Errorf("%s and %s are two rules", lower, ref)
		}
	}
	if !rules.SameID(upper, urn) || rules.SameID("A", "a") || rules.SameID(lower, strings.Replace(lower, "0a", "0b", 1)) {
		t.Error("other ids than UUIDs are compared as they are written")
	}
}

// TestNamesAndIDs calls rules by id in one place and by name in another.
func TestNamesAndIDs(t *testing.T) {
	base := func(id, name, typ string) string {
		return "title: " + name + "\nid: " + id + "\nname: " + name + "\nlogsource: {product: auth0}\nlevel: low\ndetection:\n  s: {type: " + typ + "}\n  condition: s\n---\n"
	}
	both := base("id-a", "left", "a") + base("id-b", "right", "b")
	for _, rest := range []string{
		"rules: [id-a, id-b], aliases: {who: {left: actor, right: owner}}",
		"rules: [left, right], aliases: {who: {id-a: actor, id-b: owner}}",
		"rules: [left, id-b], aliases: {who: {id-a: actor, right: owner}}",
		"rules: [id-a, id-b], aliases: {who: {left: actor, right: owner}}, condition: left and right",
		"rules: [left, right], aliases: {who: {left: actor, id-a: actor, right: owner}}, condition: all of *t",
		"aliases: {who: {left: actor, right: owner}}, condition: id-a and right",
	} {
		set := mustLoad(t, nil, both+"title: c\nid: c\nlevel: low\ncorrelation: {type: temporal, timespan: 1h, group-by: [who], "+rest+"}")
		c := set.Rules()[2].Correlation
		if got := []string{c.Sources[0].GroupBy[0].Path, c.Sources[1].GroupBy[0].Path}; !slices.Equal(got, []string{"actor", "owner"}) {
			t.Errorf("%s: grouped by %v", rest, got)
		}
		if c.Need != nil && (c.Need.Met(1) || !c.Need.Met(3)) {
			t.Errorf("%s: the condition means something else", rest)
		}
	}
	for rest, want := range map[string]string{
		"rules: [id-a, left]": `correlation refers to "id-a" and to "left", which are the same rule`,
		"rules: [id-a, id-b], aliases: {who: {left: x, id-a: y}}": "correlation.aliases.who: both",
		"rules: [id-a], aliases: {who: {right: x}}":               `"right" is not among the correlation's rules`,
		"rules: [id-a, id-b], condition: left and nobody":         `"nobody" is not among the correlation's rules`,
		"rules: [id-a, id-b], condition: left and not id-a":       `does not mention the rule "right"`,
	} {
		_, report := rules.Load(nil, source(both+"title: c\nid: c\nlevel: low\ncorrelation: {type: temporal, timespan: 1h, group-by: [who], "+rest+"}"))
		if d := report.Documents[2]; d.Status != rules.StatusRefused || !strings.Contains(d.Reason, want) {
			t.Errorf("%s: %s %s", rest, d.Status, d.Reason)
		}
	}
}

// TestFilterOfSome tunes those of a filter's rules that it fits and warns of the others.
func TestFilterOfSome(t *testing.T) {
	rule := func(id, source string) string {
		return "title: " + id + "\nid: " + id + "\nlogsource: " + source + "\nlevel: low\ndetection:\n  s: {a: 1}\n  condition: s\n---\n"
	}
	text := rule("fits", "{product: auth0, service: x}") + rule("other", "{product: auth0, service: y}") +
		"title: c\nid: c\nlevel: low\ngenerate: true\ncorrelation: {type: event_count, rules: [other], timespan: 1h, condition: {gte: 2}}\n---\n" +
		"title: f\nid: f\nlogsource: {product: auth0, service: x}\nfilter:\n  rules: [nobody, c, other, fits]\n  own: {ip: x}\n  condition: not own"
	set, report := rules.Load(nil, source(text))
	d := report.Documents[3]
	if d.Status != rules.StatusEnabled || len(d.Warnings) != 3 {
		t.Fatalf("%s %s %q", d.Status, d.Reason, d.Warnings)
	}
	for i, want := range []string{`"nobody", but no rule has that id or name`, `filter of the correlation "c"`, `"other" is a rule for another log source`} {
		if !strings.Contains(d.Warnings[i], want) {
			t.Errorf("warning %q, want %q", d.Warnings[i], want)
		}
	}
	if got := set.Matcher().Match([]byte(`{"a":1,"ip":"x"}`)); !slices.Equal(got, []int{1}) {
		t.Errorf("matches %v, want only the rule that is not tuned", got)
	}
}

// TestOtherLogSources has rules of other products not run unless that is asked for.
func TestOtherLogSources(t *testing.T) {
	rule := func(id, source string) string {
		return "title: " + id + "\nid: " + id + "\nlevel: low\n" + source + "detection:\n  s: {a: 1}\n  condition: s\n---\n"
	}
	text := rule("none", "") + rule("ours", "logsource: {product: Auth0}\n") + rule("category", "logsource: {category: proxy}\n") + rule("windows", "logsource: {product: windows, category: x}\n") +
		rule("okta", "logsource: {product: okta, service: okta}\n") + "title: c\nid: c\nlevel: low\ngenerate: true\ncorrelation: {type: temporal, rules: [ours, okta], timespan: 1h}\n---\n" +
		"title: broken\nid: broken\nlogsource: {product: linux}\ndetection:\n  s: {a|like: 1}\n  condition: s\n"
	set, report := rules.Load(nil, source(text))
	status := map[string]rules.Status{}
	for _, d := range report.Documents {
		status[d.ID] = d.Status
	}
	want := map[string]rules.Status{"none": rules.StatusEnabled, "ours": rules.StatusEnabled, "category": rules.StatusEnabled, "windows": rules.StatusOtherSource, "okta": rules.StatusOtherSource, "c": rules.StatusOtherSource, "broken": rules.StatusOtherSource}
	if diff := cmp.Diff(want, status); diff != "" || len(set.Matcher().Match([]byte(`{"a":1}`))) != 3 {
		t.Errorf("-want +got\n%s", diff)
	}
	set, report = rules.Settings{AllLogSources: true}.Load(source(text))
	if report.Count(rules.StatusOtherSource) != 0 || report.Count(rules.StatusRefused) != 1 || len(set.Matcher().Match([]byte(`{"a":1}`))) != 5 {
		t.Errorf("all: %+v", report.Documents)
	}
}
