package rules_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

// The folders of Sigma's official schemas, and of those written for these tests.
const (
	schemasDir    = "../../shared/data/sigma-schemas"
	ownSchemasDir = "testdata/schemas"
)

// ownSchemas are those written for these tests.
func ownSchemas(t *testing.T) rules.Schemas {
	t.Helper()
	schemas, err := rules.LoadSchemas(os.DirFS(ownSchemasDir))
	if err != nil {
		t.Fatal(err)
	}
	return schemas
}

// sigmaSchemas are the official ones.
func sigmaSchemas(t *testing.T) rules.Schemas {
	t.Helper()
	if _, err := os.Stat(schemasDir); err != nil {
		t.Skipf("not proven: that our rules keep to Sigma's own schemas, and that its samples load; smaller schemas are tested: %v", err)
	}
	schemas, err := rules.LoadSchemas(os.DirFS(schemasDir))
	if err != nil {
		t.Fatal(err)
	}
	return schemas
}

// documents are those of a YAML file as JSON would have them.
func documents(t *testing.T, name string, data []byte) []map[string]any {
	t.Helper()
	var list []map[string]any
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc map[string]any
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for key, value := range doc {
			if date, ok := value.(time.Time); ok {
				doc[key] = date.Format(time.DateOnly)
			}
		}
		list = append(list, doc)
	}
}

func kindOf(doc map[string]any) string {
	for _, kind := range []string{"detection", "correlation", "filter"} {
		if doc[kind] != nil {
			return kind
		}
	}
	return ""
}

// TestSchemas holds the rules that we ship, and others, against schemas written for this.
func TestSchemas(t *testing.T) {
	for _, f := range (rules.Settings{Vars: catalogVars}).Lint(ownSchemas(t), builtin.FS(), os.DirFS(mannerDir)) {
		if f.Check == "schema" {
			t.Errorf("%+v", f)
		}
	}
}

// TestSigmaSchemas holds them, and Auth0's, against Sigma's own schemas.
func TestSigmaSchemas(t *testing.T) {
	schemas := sigmaSchemas(t)
	sources := []fs.FS{builtin.FS()}
	if _, err := os.Stat(catalogDir); err == nil {
		sources = append(sources, os.DirFS(catalogDir))
	}
	for _, f := range (rules.Settings{Vars: catalogVars}).Lint(schemas, sources...) {
		if f.Check == "schema" {
			t.Errorf("%+v", f)
		}
	}
}

// TestSchemaFindings is what the schemas find, with where it is.
func TestSchemaFindings(t *testing.T) {
	t.Run("ours", func(t *testing.T) { schemaFindings(t, ownSchemas(t)) })
	t.Run("Sigma's own", func(t *testing.T) { schemaFindings(t, sigmaSchemas(t)) })
}

func schemaFindings(t *testing.T, schemas rules.Schemas) {
	t.Helper()
	const text = `title: t
id: a
status: good
date: 2026-01-01
modified: 2026/01/02
tags:
  - attack.t1110
  - Attack
logsource: {product: auth0}
detection:
  s: {a: b}
---
title: c
correlation:
  type: event_count
  rules: [s]
  group-by: ip
  timespan: 1h
  condition:
    gte: many
---
title: words
correlation: {type: temporal, rules: [ab, bc], group-by: [ip], timespan: 1h, condition: ab and bc}
---
title: ours
x-tenantwatch-correlation: {}
`
	var got []string
	for _, f := range schemas.Check("rule.yml", []byte(text)) {
		if f.Severity != rules.SeverityError || f.Check != "schema" || f.File != "rule.yml" {
			t.Errorf("%+v", f)
		}
		got = append(got, fmt.Sprintf("%d %s", f.Line, f.Text))
	}
	slices.Sort(got)
	for i, want := range []string{"11 at '/detection': missing property 'condition'", "17 at '/correlation/group-by': got string, want array", "3 at '/status': 'oneOf' failed, none matched: value must be 'stable', value must be 'test', ", "5 at '/modified': '2026/01/02' does not match pattern", "8 at '/tags/1': 'Attack' does not match pattern"} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("finding %d is to begin with %q:\n%s", i, want, strings.Join(got, "\n"))
		}
	}
	if _, err := rules.LoadSchemas(os.DirFS(t.TempDir())); err == nil {
		t.Error("schemas were read from an empty folder")
	}
}

// TestSampleDocuments loads the specification's own samples, each with the rules
// that it names. What has no date or level is theirs.
func TestSampleDocuments(t *testing.T) {
	schemas := sigmaSchemas(t)
	files, err := filepath.Glob(filepath.Join(schemasDir, "tests", "schema", "*", "*.yml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		doc := documents(t, name, data)[0]
		kind := kindOf(doc)
		for _, f := range schemas.Check(filepath.Base(name), data) {
			t.Logf("not right by its own schema: %+v", f)
		}
		var named strings.Builder
		if part, ok := doc[kind].(map[string]any); ok && kind != "detection" {
			list, _ := part["rules"].([]any)
			for _, rule := range list {
				source := ""
				if kind == "filter" {
					text, err := yaml.Marshal(map[string]any{"logsource": doc["logsource"]})
					if err != nil {
						t.Fatal(err)
					}
					source = "\n" + strings.TrimSpace(string(text))
				}
				named.WriteString("---\ntitle: named\nname: '" + rule.(string) + "'\nid: id-" + rule.(string) + source + "\ndetection:\n  s: {a: b}\n  condition: s\n")
			}
		}
		_, report := rules.Settings{AllLogSources: true}.Load(source(strings.TrimRight(string(data), "\n") + "\n" + named.String()))
		d := report.Documents[0]
		if filepath.Base(name) == "value_percentile.yml" {
			if d.Status != rules.StatusRefused || !strings.Contains(d.Reason, "percentile") {
				t.Errorf("%s: %s %s", name, d.Status, d.Reason)
			}
			continue
		}
		if !d.Runs() {
			t.Errorf("%s: %s %s", name, d.Status, d.Reason)
		}
	}
}
