package rules_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/tenantwatch/tenantwatch/rules"
	"github.com/tenantwatch/tenantwatch/rules/builtin"
)

const schemasDir = "../../shared/data/sigma-schemas"

// sigmaSchemas are the official ones, by kind of document.
func sigmaSchemas(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	if _, err := os.Stat(schemasDir); err != nil {
		t.Skipf("Sigma's JSON Schemas are not beside the repository: %v", err)
	}
	schemas := map[string]*jsonschema.Schema{}
	for kind, name := range map[string]string{"detection": "detection-rule", "correlation": "correlation-rules", "filter": "filters"} {
		compiled, err := jsonschema.NewCompiler().Compile(filepath.Join(schemasDir, "json-schema", "sigma-"+name+"-schema.json"))
		if err != nil {
			t.Fatal(err)
		}
		schemas[kind] = compiled
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

// TestBuiltinSchemas holds the rules that we ship against Sigma's own schemas.
func TestBuiltinSchemas(t *testing.T) {
	schemas := sigmaSchemas(t)
	held := 0
	err := fs.WalkDir(builtin.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(name, ".yml") || strings.Contains(filepath.Base(name[:len(name)-4]), ".") {
			return err
		}
		data, err := fs.ReadFile(builtin.FS(), name)
		if err != nil {
			return err
		}
		for _, doc := range documents(t, name, data) {
			kind := kindOf(doc)
			if kind == "" && doc["x-tenantwatch-correlation"] != nil {
				continue // ours alone
			}
			held++
			if c, ok := doc["correlation"].(map[string]any); ok && fmt.Sprintf("%T", c["condition"]) == "string" {
				c["condition"] = map[string]any{"gte": 1} // in words: pySigma's, which the schema does not know
			}
			if err := schemas[kind].Validate(doc); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if held < 50 {
		t.Errorf("only %d documents", held)
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
		if err := schemas[kind].Validate(doc); err != nil {
			t.Logf("%s is not right by its own schema: %v", filepath.Base(name), err)
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
		_, report := rules.Load(nil, source(strings.TrimRight(string(data), "\n")+"\n"+named.String()))
		d := report.Documents[0]
		if filepath.Base(name) == "value_percentile.yml" {
			if d.Status != rules.Refused || !strings.Contains(d.Reason, "percentile") {
				t.Errorf("%s: %s %s", name, d.Status, d.Reason)
			}
			continue
		}
		if !d.Runs() {
			t.Errorf("%s: %s %s", name, d.Status, d.Reason)
		}
	}
}
