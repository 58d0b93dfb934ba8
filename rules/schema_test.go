package rules_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

// The folders of Sigma's official schemas, and of those written for these tests.
const (
	schemasDir    = "../../shared/data/sigma-schemas"
	ownSchemasDir = "testdata/schemas"
)

// schemas are JSON Schemas of Sigma's documents, by kind.
type schemas map[string]*jsonschema.Schema

// schemasIn reads the schemas of a folder, which have the names that Sigma gives them.
func schemasIn(dir string) (schemas, error) {
	all := schemas{}
	for kind, name := range map[string]string{"detection": "detection-rule", "correlation": "correlation-rules", "filter": "filters"} {
		schema, err := jsonschema.NewCompiler().Compile(filepath.Join(dir, "sigma-"+name+"-schema.json"))
		if err != nil {
			return nil, err
		}
		all[kind] = schema
	}
	return all, nil
}

// ownSchemas are those written for these tests.
func ownSchemas(t *testing.T) schemas {
	t.Helper()
	all, err := schemasIn(ownSchemasDir)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// sigmaSchemas are the official ones.
func sigmaSchemas(t *testing.T) schemas {
	t.Helper()
	if _, err := os.Stat(schemasDir); err != nil {
		t.Skipf("not proven: that our rules keep to Sigma's own schemas, and that its samples load; smaller schemas are tested: %v", err)
	}
	all, err := schemasIn(filepath.Join(schemasDir, "json-schema"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// faults are what the schemas find in the documents of a file. Correlations of our own types have
// no schema, and a condition in words is pySigma's.
func (s schemas) faults(t *testing.T, name string, data []byte) (list []string) {
	t.Helper()
	for _, doc := range documents(t, name, data) {
		if doc["x-tenantwatch-correlation"] != nil || s[kindOf(doc)] == nil {
			continue
		}
		if correlation, ok := doc["correlation"].(map[string]any); ok {
			if _, words := correlation["condition"].(string); words {
				correlation["condition"] = map[string]any{"gte": 1}
			}
		}
		var invalid *jsonschema.ValidationError
		if errors.As(s[kindOf(doc)].Validate(doc), &invalid) {
			list = append(list, causesOf(invalid)...)
		}
	}
	return list
}

// causesOf are the innermost errors. Of several alternatives, one of which has to be valid, it is
// the error that none is.
func causesOf(e *jsonschema.ValidationError) (list []string) {
	_, oneOf := e.ErrorKind.(*kind.OneOf)
	_, anyOf := e.ErrorKind.(*kind.AnyOf)
	if oneOf || anyOf || len(e.Causes) == 0 {
		return []string{e.Error()}
	}
	for _, cause := range e.Causes {
		list = append(list, causesOf(cause)...)
	}
	return list
}

// faultsIn are what they find in the rules of a folder.
func (s schemas) faultsIn(t *testing.T, folder fs.FS) (list []string) {
	t.Helper()
	err := rules.Walk(folder, func(name string) error {
		if rules.IsTest(name) || strings.HasSuffix(name, ".overlay.yml") {
			return nil
		}
		data, err := fs.ReadFile(folder, name)
		if err != nil {
			return err
		}
		for _, fault := range s.faults(t, name, data) {
			list = append(list, name+": "+fault)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
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
	schemas := ownSchemas(t)
	for _, folder := range []fs.FS{builtin.FS(), os.DirFS(mannerDir)} {
		for _, fault := range schemas.faultsIn(t, folder) {
			t.Error(fault)
		}
	}
}

// TestSigmaSchemas holds them, and Auth0's, against Sigma's own schemas.
func TestSigmaSchemas(t *testing.T) {
	schemas := sigmaSchemas(t)
	folders := []fs.FS{builtin.FS()}
	if _, err := os.Stat(catalogDir); err == nil {
		folders = append(folders, os.DirFS(catalogDir))
	}
	for _, folder := range folders {
		for _, fault := range schemas.faultsIn(t, folder) {
			t.Error(fault)
		}
	}
}

// TestSchemaFaults is what the schemas find.
func TestSchemaFaults(t *testing.T) {
	t.Run("ours", func(t *testing.T) { schemaFaults(t, ownSchemas(t)) })
	t.Run("Sigma's own", func(t *testing.T) { schemaFaults(t, sigmaSchemas(t)) })
}

func schemaFaults(t *testing.T, schemas schemas) {
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
	got := schemas.faults(t, "rule.yml", []byte(text))
	slices.Sort(got)
	for i, want := range []string{"at '/correlation/group-by': got string, want array", "at '/detection': missing property 'condition'", "at '/modified': '2026/01/02' does not match pattern", "at '/status': 'oneOf' failed, none matched\n- at '/status': value must be 'stable'\n- at '/status': value must be 'test'", "at '/tags/1': 'Attack' does not match pattern"} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("fault %d is to begin with %q:\n%s", i, want, strings.Join(got, "\n"))
		}
	}
	if _, err := schemasIn(t.TempDir()); err == nil {
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
		for _, fault := range schemas.faults(t, filepath.Base(name), data) {
			t.Logf("not right by its own schema: %s", fault)
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
